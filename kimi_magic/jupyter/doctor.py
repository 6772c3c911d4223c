"""``%kimi doctor`` and ``kimi-magic doctor``: what is, what it means, and what to do.

All that can be known without a request is looked at first. Then, if a person says yes, a few short
requests tell the facts of an endpoint's dialect. A fault of either is a row of the table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
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
from kimi_magic.jupyter.doctor_tools import look_at_tools, tool_rows
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


@dataclass(slots=True)
class Patient:
    """What is looked at, how, and the rows so far."""

    session: Session
    choices: DoctorOptions
    command: str  # for the advice to run it again
    display_id: str = ""
    rows: list[Row] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=dict)
    endpoint: Endpoint | None = None
    findings: Findings | None = None
    nobody: str = ""  # why there is no endpoint
    is_live: bool = False  # a widget stands in the output
    where: str = "shell"
    stopped: bool = False

    def look(self, group: str, rows: Callable[[], Iterable[Row]]) -> None:
        """Add the rows of a group; what fails is a row itself."""
        try:
            self.rows += rows()
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
        """Note that a widget stands in the output, which the table has to take over."""
        self.is_live = True

    @property
    def diagnosis(self) -> Diagnosis:
        """The rows so far, not masked yet."""
        findings, name = self.findings, self.endpoint.name if self.endpoint else ""
        version = machine.own_version()
        sent = findings is not None and not findings.unsent
        return Diagnosis(tuple(self.rows), version, self.where, name, sent, self.stopped)


def run_doctor(notebook: Notebook, name: str, options: Mapping[str, Any]) -> None:
    """Show the table in a notebook, or in a terminal of IPython.

    Raises
    ------
    KimiError
        There is no such endpoint.
    TurnInterrupted
        It was stopped; the table shows what was found until then.
    """
    choices = DoctorOptions(
        **{each: bool(options[each]) for each in ("yes", "offline", "json", "report")}
    )
    command = f"%kimi doctor {name}".strip()
    patient = Patient(notebook.session, choices, command, uuid4().hex)
    diagnosis = examine(patient, name)
    _show(patient, diagnosis)
    if diagnosis.stopped:
        raise TurnInterrupted(STOPPED)


def run_command(console: Console, name: str, choices: DoctorOptions) -> int:
    """Print the table in a shell; return 0, 1 where something must be mended, or 130.

    Raises
    ------
    KimiError
        There is no such endpoint.
    """
    from kimi_magic.session import current

    patient = Patient(current(), choices, f"kimi-magic doctor {name}".strip())
    diagnosis = examine(patient, name)
    if choices.json:
        print(to_json(diagnosis))
    elif choices.report:
        print(report(diagnosis))
    else:
        print_table(diagnosis, console)
    return 130 if diagnosis.stopped else int(diagnosis.must_mend)


def _show(patient: Patient, diagnosis: Diagnosis) -> None:
    choices = patient.choices
    if choices.json or choices.report:
        text = to_json(diagnosis) if choices.json else report(diagnosis)
        bundle = Bundle({"text/plain": text}, {})
    elif patient.where == "terminal":
        from rich.console import Console

        print_table(diagnosis, Console(force_jupyter=False, highlight=False))
        return
    else:
        text, bundle = "", draw(diagnosis)
    if text and not patient.is_live:
        print(text)
    else:  # a widget that asked the page for an answer gives way to it
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
    patient.look("key", lambda: _keys(patient, is_named=bool(name)))  # one may have been typed
    if (findings := patient.findings) is not None:
        patient.look("endpoint", lambda: endpoint_rows(findings))
    mask = Redactor(session.connector.known_keys(), shapes=True).text
    diagnosis = patient.diagnosis.masked(mask)
    if patient.choices.report:
        diagnosis = diagnosis.masked(partial(hidden, names=setup.names_to_hide(session)))
    return diagnosis


def _keys(patient: Patient, *, is_named: bool) -> Iterable[Row]:
    session = patient.session
    found = setup.look_at_keys(session, patient.endpoint)
    problem = session.connector.catalogue.problem
    return setup.key_rows(found, problem, patient.nobody, is_named=is_named)


def _look_here(patient: Patient, name: str) -> None:
    """Look at this machine; nothing is sent."""
    session, look = patient.session, patient.look
    settings = session.settings
    shell = frontend.running_shell()
    patient.where = "kernel" if frontend.has_kernel(shell) else "terminal" if shell else "shell"

    def software() -> Iterable[Row]:
        facts = machine.look_at_software()
        patient.versions = facts.versions
        return machine.software_rows(facts)

    def front_end() -> Iterable[Row]:
        facts = machine.look_at_front_end(
            settings, patient.versions, patient.display_id, patient.shown
        )
        return machine.front_end_rows(facts)

    def environment() -> Iterable[Row]:
        return setup.environment_rows(setup.look_at_environment(settings, patient.versions))

    look("software", software)
    look("front_end", front_end)
    try:
        patient.endpoint = session.connector.choose(name or None, settings)
    except ConfigError as error:
        patient.nobody = str(error)
    look("kept", lambda: setup.kept_rows(setup.look_at_kept(session)))
    look("local", lambda: setup.local_rows(setup.look_at_local(settings)))
    look("tool", lambda: tool_rows(look_at_tools()))
    look("setting", lambda: setup.setting_rows(setup.look_at_settings(settings)))
    look("environment", environment)


def _look_there(patient: Patient, endpoint: Endpoint) -> None:
    """Look at the endpoint, if that may be: requests are sent for a person who said yes."""
    session = patient.session
    settings, connector = session.settings, session.connector
    findings = patient.findings = Findings(
        endpoint.name,
        endpoint.base_url or "the embedded engine",
        wire=endpoint.wire,
        via=(endpoint.base_url and proxy_for(endpoint.base_url)) or "",
        unsent=_refusal(patient, endpoint),
    )
    if findings.unsent:
        return
    try:
        endpoint.own_headers.resolve()
        key = connector.key_at_hand(endpoint)
        if key is None and not patient.choices.json:
            key = session.find_key(endpoint)
        elif key is None:
            connector.key(endpoint, None)  # its error says where a key would be looked for
        known = settings.model or connector.default_model(endpoint) or GUESSED_MODEL
        named = known if endpoint.base_url else None
        notice = _ignore if patient.choices.json else print
        resolved = connector.connect(endpoint, key, named, settings, notice)
    except KimiError as error:
        said, _, advice = str(error).partition("\n")
        findings.unsent = (said.rstrip("."), advice or YES.format(patient.command))
        return
    findings.has_key = key is not None
    try:
        make_trips(session, resolved, findings)
    except KimiError as error:
        findings.unsent = (str(error).rstrip("."), "")


def _ignore(_: object) -> None:
    """Drop a notice: JSON alone is printed."""


def _refusal(patient: Patient, endpoint: Endpoint) -> tuple[str, ...]:
    """Return why nothing may be sent, and what to do; empty where it may."""
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
