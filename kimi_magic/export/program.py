"""What an exported program does, as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kimi_magic.core.text import mend_surrogates

__all__ = ["Program"]


@dataclass(frozen=True, slots=True)
class Program:
    """One turn, to be written down.

    Parameters
    ----------
    body : Mapping
        The turn's first request as the API knows it.
    base_url : str
        Up to and including ``/v1``.
    key_env : str or None
        The environment variable that holds the key; None: the server wants none.
    provider : str
        The endpoint's name.
    functions : Mapping
        The functions of the tools, by the tools' names.
    notes : tuple of str
        What else the reader has to know, such as where a secret was masked.
    """

    body: Mapping[str, Any]
    base_url: str
    key_env: str | None = None
    provider: str = ""
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "body", _mended(self.body))

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body["messages"])

    @property
    def tools(self) -> list[dict[str, Any]]:
        return list(self.body.get("tools") or ())

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def options(self) -> dict[str, Any]:
        """What is asked for beside the messages and the tools."""
        apart = ("messages", "tools")
        return {key: value for key, value in self.body.items() if key not in apart}

    @property
    def seconds(self) -> int:
        """The longest silence to wait through: without a stream it lasts to the whole answer."""
        return 600 if self.streams else 3600

    def about(self, way: str, install: str = "") -> list[str]:
        """The program's opening words."""
        said = [f"{self.model} through {way}."]
        if install:
            said.append(f"Install: {install}")
        if self.key_env:
            said.append(f"Key: from the environment variable {self.key_env}")
        return [*said, *self.notes]

    def unrun(self) -> list[str]:
        """For forms that run no tools."""
        names = ", ".join(tool["function"]["name"] for tool in self.tools)
        said = [f"Tools: {names}. The model's calls are shown, and the program ends there."]
        return said if names else []


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return mend_surrogates(value)
    if isinstance(value, Mapping):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return value
