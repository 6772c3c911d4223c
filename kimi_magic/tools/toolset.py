"""What the model is offered: tools under unique names, and a call by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import ToolResult
from kimi_magic.tools.decorator import (
    MAX_TOOLS,
    RUN_PYTHON,
    TOO_MANY,
    Offer,
    is_one,
    main,
    offer_of,
)

if TYPE_CHECKING:
    from kimi_magic.tools.tool import Tool

__all__ = ["Toolset", "find"]


class Toolset:
    """Tools under unique names.

    Parameters
    ----------
    tools : iterable, mapping or callable
        Callables, tools, names of callables (also dotted: ``model.predict``), schemas as the API
        has them, and maps of names to callables. A schema's callable is the one of its name in a
        map, or else in `namespace`. ``"run_python"`` is the built-in tool of that name.
    namespace : mapping or None
        The variables that names and references mean; those of ``__main__``, which in a notebook
        are the notebook's, where there is none.

    Raises
    ------
    KimiError
        Something that cannot be a tool, or too many.

    Examples
    --------
    >>> def add(a: int, b: int) -> int:
    ...     return a + b
    >>> Toolset([add]).call("add", '{"a": 2, "b": 3}').value
    5
    """

    def __init__(self, tools: Any, *, namespace: Mapping[str, Any] | None = None) -> None:
        self.namespace = main() if namespace is None else namespace
        self._tools: dict[str, Tool] = {}
        for tool in _Reader(_listed(tools), self.namespace):
            self._add(tool)

    @property
    def names(self) -> list[str]:
        return list(self._tools)

    @property
    def tools(self) -> list[Tool]:
        """The tools, with the variables that their schemas list as they are now."""
        return [tool.at_moment(self.namespace) for tool in self._tools.values()]

    def schemas(self) -> list[dict[str, Any]]:
        """The tools as the API has them."""
        return [tool.schema() for tool in self.tools]

    def get(self, name: str) -> Tool | None:
        return self._tools.get(name)

    def __len__(self) -> int:
        return len(self._tools)

    def call(
        self,
        name: str,
        arguments_text: str,
        *,
        call_id: str = "",
        approve: Callable[[Tool, dict[str, Any]], bool | dict[str, Any]] | None = None,
    ) -> ToolResult:
        """Call a tool as the model asks for it.

        Parameters
        ----------
        name : str
            The tool's.
        arguments_text : str
            The arguments as JSON text.
        call_id : str
            Goes into the result.
        approve : callable or None
            Asked before a tool that wants it is run: whether it may, or with which arguments.

        Returns
        -------
        ToolResult
            Also where it failed: ``error`` says so, and ``content`` tells the model what to do.

        Raises
        ------
        ToolInterrupted
            A KeyboardInterrupt came while the function ran.
        """
        from kimi_magic.tools.call import run_call

        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(self._tools)
            error = f"unknown tool {name!r}; " + (f"known: {known}" if known else "there is none")
            return ToolResult(str(name), f"Error: {error}", error=error, call_id=call_id)
        return run_call(tool, arguments_text, self.namespace, call_id=call_id, approve=approve)

    def _add(self, tool: Tool) -> None:
        if any(_is_same(tool, known) for known in self._tools.values()):
            return
        if len(self._tools) >= MAX_TOOLS:
            raise KimiError(TOO_MANY)
        name, count = tool.name, 1
        while name in self._tools:
            count += 1
            name = f"{tool.name[: 63 - len(str(count))]}_{count}"
        if name != tool.name:
            tool = replace(tool, name=name, notes=(*tool.notes, f"renamed from {tool.name}"))
        self._tools[name] = tool


def find(path: str, namespace: Mapping[str, Any]) -> Callable[..., Any]:
    """The callable that a name or a dotted path means.

    Raises
    ------
    KimiError
        There is none.
    """
    first, *rest = path.split(".")
    if first not in namespace:
        raise KimiError(f"there is no {first}: define the function {path}, or mend the name")
    found = namespace[first]
    for i, part in enumerate(rest):
        try:
            found = getattr(found, part)
        except AttributeError:
            owner = ".".join([first, *rest[:i]])
            raise KimiError(f"{owner} has no {part}: mend the name {path}") from None
    if not callable(found):
        raise KimiError(f"{path} is a {type(found).__name__}: a tool must be callable")
    return found  # type: ignore[no-any-return]


class _Reader:
    """Reads what a user gives as tools."""

    def __init__(self, given: list[Any], namespace: Mapping[str, Any]) -> None:
        self.given, self.namespace = given, namespace
        maps = [item for item in given if isinstance(item, Mapping) and not _is_api(item)]
        self.maps = {name: fn for each in maps for name, fn in each.items()}
        self.meant = {_api_name(item) for item in given if _is_api(item)}

    def __iter__(self) -> Iterator[Tool]:
        for item in self.given:
            if _is_api(item):
                yield self._from_api(item)
            elif isinstance(item, Mapping):
                for name, fn in item.items():
                    if name not in self.meant:
                        yield self._make(fn, name)
            else:
                yield self._make(item)

    def _from_api(self, item: Mapping[str, Any]) -> Tool:
        name = _api_name(item)
        fn = self.maps.get(name, self.namespace.get(name))
        if fn is None:
            raise KimiError(f"no function for the tool {name}: add {{{name!r}: function}}")
        return self._make(fn, name, item)

    def _make(self, item: Any, name: str | None = None, schema: Any = None) -> Tool:
        from kimi_magic.tools.tool import Tool, make_tool

        if isinstance(item, Tool):
            return replace(item, name=name) if name else item
        path = item if isinstance(item, str) else ""
        if path == RUN_PYTHON:  # whatever code has put into the notebook under this name
            item = _run_python(self.namespace)
        elif path:
            item = find(path, self.namespace)
        offer = item if isinstance(item, Offer) else offer_of(item)
        return make_tool(
            offer.function,
            name=name or offer.name or path.rpartition(".")[2] or None,
            description=None if schema else offer.description,
            schema=schema or offer.schema,
            options=offer.options,
            namespace=self.namespace,
        )


def _run_python(namespace: Mapping[str, Any]) -> Offer:
    """The built-in tool, which asks before each call."""
    from kimi_magic.tools.run_python import make_run_python
    from kimi_magic.tools.tool import ToolOptions

    if not isinstance(namespace, dict):
        raise KimiError(f"{RUN_PYTHON} needs a namespace that it may write to, such as globals()")
    run = make_run_python(namespace)
    return Offer(run, RUN_PYTHON, None, None, ToolOptions(confirm=True))


def _listed(tools: Any) -> list[Any]:
    from kimi_magic.tools.tool import Tool

    alone = callable(tools) or isinstance(tools, str | Mapping | Offer | Tool)
    if not alone and not isinstance(tools, Iterable):
        raise KimiError(f"{tools!r:.60} cannot be called: offer a function, or a list of functions")
    return [tools] if alone else list(tools)


def _is_api(item: Any) -> bool:
    """Whether it is a tool as the API has it: {"type": "function", "function": {…}}."""
    return isinstance(item, Mapping) and isinstance(item.get("function"), Mapping)


def _api_name(item: Mapping[str, Any]) -> str:
    name = item["function"].get("name")
    if not isinstance(name, str) or not name:
        raise KimiError('a tool\'s schema has no name: add "name" inside "function"')
    return name


def _is_same(one: Tool, other: Tool) -> bool:
    """The same callable under the same name, offered twice."""
    return one.name == other.name and is_one(one.function, other.function)
