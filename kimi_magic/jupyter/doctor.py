"""``%kimi doctor`` and ``kimi-magic doctor``: findings, their meaning, and the next step for each.

The doctor first looks at everything that needs no request. Then, if a person says yes, it sends a
few short requests that show the dialect of the endpoint. A fault in either part becomes a row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from kimi_magic.core import frontend
from kimi_magic.core.errors import ConfigError, KimiError, TurnInterrupted
from kimi_magic.core.interrupts import holding_interrupts, waiting
from kimi_magic.core.text import reveal
from kimi_magic.display.record import Bundle, publish
from kimi_magic.jupyter import doctor_machine as machine
from kimi_magic.jupyter import doctor_setup as setup
from kimi_magic.jupyter.doctor_endpoint import Findings, endpoint_rows
from kimi_magic.jupyter.doctor_table import (
    GROUPS,
    Diagnosis,
    Row,
    draw,
    hidden,
    print_table,
    report,
    to_json,
)
from kimi_magic.jupyter.doctor_tools import tool_rows
from kimi_magic.jupyter.doctor_trips import make_trips
from kimi_magic.secrets.redact import Redactor
from kimi_magic.wire.endpoints import GUESSED_MODEL
from kimi_magic.wire.error_mapping import proxy_for

if TYPE_CHECKING:
    from rich.console import Console

    from kimi_magic.jupyter.notebook import Notebook
    from kimi_magic.session import Session
    from kimi_magic.wire.endpoints import Endpoint

__all__ = ["DoctorOptions", "Patient", "examine", "run_command", "run_doctor"]

QUESTION = "Send 3 short requests, about 400 tokens (1,500 at most), to {}? [y/N] "
YES = "`{} --yes` sends 3 short requests"
STOPPED = "The doctor was stopped: the table shows what was found until then."
REPORT_IT = "please report it, with what `%kimi doctor --report` says"


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """The options of the verb and of the command."""

    yes: bool = False
    offline: bool = False
    json: bool = False
    report: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Take them from what was parsed, which may hold other things."""
        return cls(**{each.name: bool(given[each.name]) for each in fields(cls)})


@dataclass(slots=True)
class Patient:
    """The session that is examined, the way to do it, and the findings so far."""

    session: Session
    choices: DoctorOptions
    command: str  # for the advice to run it again
    display_id: str = ""
    rows: list[Row] = field(default_factory=list)
    endpoint: Endpoint | None = None
    findings: Findings | None = None
    nobody: str = ""  # why there is no endpoint
    is_live: bool = False  # a widget stands in the output
    where: str = "shell"
    stopped: bool = False

    @contextmanager
    def looking(self, group: str) -> Iterator[None]:
        """Have a fault in the block become a row of a group."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a doctor tells of faults, whatever they are
            said = str(error).partition("\n")[0]
            self.rows.append(
                Row(
                    f"{group}.failed",
                    "unknown",
                    f"{GROUPS[group]}: {type(error).__name__}: {said}",
                    "this could not be looked at",
                    REPORT_IT,
                )
            )

    def shown(self) -> None:
        """Note that a widget stands in the output, which the table has to replace."""
        self.is_live = True


def run_doctor(notebook: Notebook, name: str, options: Mapping[str, Any]) -> None:
    """Show the table in a notebook, or in a terminal of IPython.

    Raises
    ------
    KimiError
        There is no such endpoint.
    TurnInterrupted
        It was stopped; the table shows what was found until then.
    """
    command = f"%kimi doctor {name}".strip()
    patient = Patient(notebook.session, DoctorOptions.of(options), command, uuid4().hex)
    diagnosis = examine(patient, name)
    _show(patient, diagnosis)
    if diagnosis.stopped:
        raise TurnInterrupted(STOPPED)


def run_command(console: Console, name: str, options: Mapping[str, Any]) -> int:
    """Print the table in a shell; return 0, 1 where something must be mended, or 130.

    Raises
    ------
    KimiError
        There is no such endpoint.
    """
    from kimi_magic.session import current

    command = f"kimi-magic doctor {name}".strip()
    patient = Patient(current(), DoctorOptions.of(options), command)
    diagnosis = examine(patient, name)
    if text := _as_text(patient.choices, diagnosis):
        print(text)
    else:
        print_table(diagnosis, console)
    return 130 if diagnosis.stopped else int(diagnosis.must_mend)


def _as_text(choices: DoctorOptions, diagnosis: Diagnosis) -> str:
    """Write JSON or Markdown, where that is asked for; else return ""."""
    if choices.json:
        return to_json(diagnosis)
    return report(diagnosis) if choices.report else ""


def _show(patient: Patient, diagnosis: Diagnosis) -> None:
    text = _as_text(patient.choices, diagnosis)
    if text and not patient.is_live:
        print(text)
    elif patient.where == "terminal":
        from rich.console import Console

        print_table(diagnosis, Console(force_jupyter=False, highlight=False))
    else:  # a widget that asked the page for an answer gives way to it
        bundle = Bundle({"text/plain": text}, {}) if text else draw(diagnosis)
        publish(bundle, patient.display_id, update=patient.is_live)


def examine(patient: Patient, name: str) -> Diagnosis:
    """Look at everything, and return the findings without secrets; an interrupt leaves some out.

    Raises
    ------
    KimiError
        There is no endpoint of this name.
    """
    session = patient.session
    if name:
        session.connector.catalogue.get(name)
    try:
        with holding_interrupts() as hold:
            _look_here(patient, name)
            if patient.endpoint is not None:
                _look_there(patient, patient.endpoint)
            if hold is not None and hold.pending:
                hold.pending, patient.stopped = 0, True
    except KeyboardInterrupt:
        patient.stopped = True
    with patient.looking("key"):  # only now: a key may have been typed
        found = setup.look_at_keys(session, patient.endpoint)
        problem = session.connector.catalogue.problem
        patient.rows += setup.key_rows(found, problem, patient.nobody, is_named=bool(name))
    findings = patient.findings
    if findings is not None:
        with patient.looking("endpoint"):
            patient.rows += endpoint_rows(findings)
    diagnosis = Diagnosis(
        tuple(patient.rows),
        machine.own_version(),
        patient.where,
        patient.endpoint.name if patient.endpoint else "",
        sent=findings is not None and not findings.unsent,
        stopped=patient.stopped,
    )
    redactor = Redactor(session.connector.known_keys(), shapes=True)
    hides = patient.choices.report
    names = setup.names_to_hide(session, patient.endpoint) if hides else {}
    return diagnosis.masked(lambda text: hidden(redactor.text(text), names))


def _look_here(patient: Patient, name: str) -> None:
    """Look at this machine; nothing is sent."""
    session, rows, looking = patient.session, patient.rows, patient.looking
    settings = session.settings
    shell = frontend.running_shell()
    patient.where = "kernel" if frontend.has_kernel(shell) else "terminal" if shell else "shell"
    with looking("software"):
        rows += machine.software_rows(machine.look_at_software())
    with looking("front_end"):
        seen = machine.look_at_front_end(settings, patient.display_id, patient.shown)
        rows += machine.front_end_rows(seen)
    with looking("key"):
        try:
            patient.endpoint = session.connector.choose(name or None, settings)
        except ConfigError as error:
            patient.nobody = str(error)
    with looking("kept"):
        rows += setup.kept_rows(setup.look_at_kept(session))
    with looking("local"):
        rows += setup.local_rows(setup.look_at_local(settings))
    with looking("tool"):
        rows += tool_rows()
    with looking("setting"):
        rows += setup.setting_rows(settings)
    with looking("environment"):
        rows += setup.environment_rows(setup.look_at_environment(settings))


def _look_there(patient: Patient, endpoint: Endpoint) -> None:
    """Look at the endpoint; requests are sent only for a person who said yes."""
    findings = patient.findings = Findings(
        endpoint.name,
        endpoint.base_url or "the embedded engine",
        wire=endpoint.wire,
        via=(endpoint.base_url and proxy_for(endpoint.base_url)) or "",
        unsent=_refusal(patient, endpoint),
    )
    if findings.unsent:
        return
    with patient.looking("endpoint"):
        try:
            _send(patient, endpoint, findings)
        except KimiError as error:
            said, _, advice = str(error).partition("\n")
            findings.unsent = (said.rstrip("."), advice or YES.format(patient.command))


def _send(patient: Patient, endpoint: Endpoint, findings: Findings) -> None:
    session, connector = patient.session, patient.session.connector
    in_json = patient.choices.json  # which is all that is printed, and nobody is asked for a key
    key = connector.key(endpoint, None) if in_json else session.find_key(endpoint)
    findings.has_key = key is not None
    # The model is chosen when the server's list is here.
    named = GUESSED_MODEL if endpoint.base_url else None
    notice: Callable[[str], None] = (lambda _: None) if in_json else print
    resolved = connector.connect(endpoint, key, named, session.settings, notice)
    make_trips(session, resolved, findings)


def _refusal(patient: Patient, endpoint: Endpoint) -> tuple[str, ...]:
    """Return the reason to send nothing, and what to do; empty where requests may be sent."""
    choices, again = patient.choices, YES.format(patient.command)
    if choices.offline:
        return "by the option --offline", again
    if not endpoint.base_url and (missing := _no_engine(patient.session)):
        return missing
    if choices.yes:
        return ()
    if choices.json:
        return "with --json nobody is asked", again
    # A question that goes into a file is seen by nobody.
    is_seen = patient.where != "shell" or sys.stdout.isatty()
    if not (frontend.can_answer() and is_seen):
        return "nobody can be asked here", again
    model = patient.session.settings.model or patient.session.connector.default_model(endpoint)
    target = f"{endpoint.name} ({model or 'the newest Kimi that it lists'})"
    said = _asked(QUESTION.format(reveal(patient.session.redact(target))))
    return () if said in ("y", "yes") else ("you said no", again)


def _asked(question: str) -> str:
    try:
        with waiting():
            return input(question).strip().lower()
    except EOFError:
        return ""


def _no_engine(session: Session) -> tuple[str, ...]:
    from kimi_magic.wire.local.process import available
    from kimi_magic.wire.local.weights import find_weights

    if not available():
        return "the embedded engine is not installed", 'pip install "kimi-magic[local]"'
    if not session.settings.local_model and find_weights() is None:
        return "the practice model is not here yet", "`kimi-magic fetch` downloads it"
    return ()
