"""Tools under unique names, and calls by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.frontend import user_namespace
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.core.messages import ToolResult
from kimi_magic.core.sent import about_tokens, estimate
from kimi_magic.tools.decorator import (
    MAX_TOOLS,
    RUN_PYTHON,
    TOO_MANY,
    ToolSpec,
    is_same_callable,
    spec_of,
)
from kimi_magic.tools.mcp_servers import is_served
from kimi_magic.tools.tool import (
    MAX_NAME,
    Approve,
    Tool,
    ToolOptions,
    is_tool,
    proper_name,
    split_params,
    unfit,
)

if TYPE_CHECKING:
    from kimi_magic.tools.printing import Printing

__all__ = ["LEFT_OUT", "Toolset", "find", "remark_on_size"]

LARGE = 500  # tokens of a tool that are worth a remark
LARGE_TOOL = "{} takes {} of every request. {} takes less."
PART = 'A part of its parameters, as in `-T "{}({})"` or `@kimi.tool(params=[{}])`,'
SHORTER = "A shorter docstring"
LEFT_OUT = "{} is left out: {}."
MOST_SUGGESTED = 2


class Toolset:
    """Tools under unique names.

    Parameters
    ----------
    tools : iterable, mapping or callable
        Callables, tools, names of callables (also dotted: ``model.predict``; with the parameters
        to offer: ``read_csv(path, sep)``), schemas as the API takes them, and maps of names to
        callables. A schema applies to the callable of its name in a map, or else in `namespace`.
        ``"run_python"`` is the built-in tool of that name. ``"mcp:files"`` or `kimi.mcp` stands for
        the tools of an MCP server.
    namespace : mapping or None
        The variables that names and references stand for; by default those of ``__main__``, which
        are the notebook's.

    Raises
    ------
    KimiError
        Something that cannot be a tool, too many, or an MCP server that cannot be started.

    Examples
    --------
    >>> def add(a: int, b: int) -> int:
    ...     return a + b
    >>> Toolset([add]).call("add", '{"a": 2, "b": 3}').value
    5
    """

    @whole_imports()
    def __init__(self, tools: Any, *, namespace: Mapping[str, Any] | None = None) -> None:
        self.namespace = user_namespace() if namespace is None else namespace
        self._tools: dict[str, Tool] = {}
        self.left_out: dict[str, str] = {}  # reasons, by the names of a server's tools
        for tool in _Reader(_listed(tools), self.namespace, self.left_out):
            self._add(tool)

    @property
    def names(self) -> list[str]:
        return list(self._tools)

    @property
    def tools(self) -> list[Tool]:
        """The tools, with schemas that list the variables of this moment."""
        return [tool.at_moment(self.namespace) for tool in self._tools.values()]

    def schemas(self) -> list[dict[str, Any]]:
        """Return the tools as the API takes them, with the variables of this moment.

        Calls may name the variables that were listed last.
        """
        self._tools = dict(zip(self._tools, self.tools, strict=True))
        return [tool.schema() for tool in self._tools.values()]

    @property
    def remarks(self) -> dict[str, str]:
        """Remarks on tools that take many tokens, by their names, and on tools left out."""
        said = {tool.name: text for tool in self.tools if (text := remark_on_size(tool))}
        return said | {f"{n}: {why}": LEFT_OUT.format(n, why) for n, why in self.left_out.items()}

    @property
    def functions(self) -> dict[str, Callable[..., Any]]:
        """The Python functions behind the tools, by the tools' names."""
        return {n: t.function for n, t in self._tools.items() if t.function is not None}

    def get(self, name: str) -> Tool | None:
        return self._tools.get(name)

    def __len__(self) -> int:
        return len(self._tools)

    @whole_imports()
    def call(
        self,
        name: str,
        arguments_text: str,
        *,
        call_id: str = "",
        approve: Approve | None = None,
        printing: Printing | None = None,
    ) -> ToolResult:
        """Call a tool as the model asks for it.

        Parameters
        ----------
        name : str
            The tool's name.
        arguments_text : str
            The arguments as JSON text.
        call_id : str
            The call's id in the chat, for the result.
        approve : callable or None
            Called before a tool that needs confirmation runs, with the tool and its arguments;
            returns True, False, or arguments to use instead.
        printing : Printing or None
            Hears what the call prints while it runs.

        Returns
        -------
        ToolResult
            For failures too: ``error`` says so, and ``content`` tells the model what to do.

        Raises
        ------
        ToolInterrupted
            A KeyboardInterrupt came while the tool ran.
        """
        from kimi_magic.tools.call import run_call

        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(self._tools)
            error = f"unknown tool {name!r}; " + (f"known: {known}" if known else "there is none")
            return ToolResult(str(name), f"Error: {error}", error=error, call_id=call_id)
        return run_call(
            tool,
            arguments_text,
            self.namespace,
            call_id=call_id,
            approve=approve,
            printing=printing,
        )

    def _add(self, tool: Tool) -> None:
        if any(_is_same(tool, known) for known in self._tools.values()):
            return
        if len(self._tools) >= MAX_TOOLS:
            raise KimiError(TOO_MANY)
        name, count = tool.name, 1
        while name in self._tools:
            count += 1
            name = f"{tool.name[: MAX_NAME - 1 - len(str(count))]}_{count}"
        if name != tool.name:
            tool = tool.variant(name=name)
        self._tools[name] = tool


def remark_on_size(tool: Tool) -> str:
    """Return a sentence for a tool whose description takes many tokens; "" for others."""
    schema = tool.schema()
    tokens = estimate((), [schema])
    if tokens <= LARGE:
        return ""
    parameters = schema["function"].get("parameters") or {}
    names = list(parameters.get("properties") or ())
    some = list(parameters.get("required") or ())
    some += [name for name in names if name not in some][: max(MOST_SUGGESTED - len(some), 0)]
    quoted = ", ".join(f'"{name}"' for name in some)
    way = PART.format(getattr(tool, "path", "") or tool.name, ", ".join(some), quoted)
    way = way if len(some) < len(names) else SHORTER
    return LARGE_TOOL.format(tool.name, about_tokens(tokens), way)


def find(path: str, namespace: Mapping[str, Any]) -> Any:
    """Return the callable or tool that a name or a dotted path stands for."""
    first, *rest = path.split(".")
    if first not in namespace:
        raise KimiError(f"there is no {first}: define the function {path}, or correct the name")
    found = namespace[first]
    for i, part in enumerate(rest):
        try:
            found = getattr(found, part)
        except AttributeError:
            owner = ".".join([first, *rest[:i]])
            raise KimiError(f"{owner} has no {part}: correct the name {path}") from None
        except Exception as error:  # noqa: BLE001 - a property may raise anything
            raise unfit(path, error) from None
    if not callable(found) and not is_tool(found):
        raise KimiError(f"{path} is a {type(found).__name__}: a tool must be callable")
    return found


class _Reader:
    """Reads what a user gave as tools."""

    def __init__(
        self, given: list[Any], namespace: Mapping[str, Any], left_out: dict[str, str]
    ) -> None:
        self.given, self.namespace, self.left_out = given, namespace, left_out
        maps = [item for item in given if isinstance(item, Mapping) and not _is_api(item)]
        self.maps = {name: fn for each in maps for name, fn in each.items()}
        self.described = {_api_name(item) for item in given if _is_api(item)}

    def __iter__(self) -> Iterator[Tool]:
        for item in self.given:
            if _is_api(item):
                yield self._from_api(item)
            elif isinstance(item, Mapping):
                for name, fn in item.items():
                    if name not in self.described:
                        yield self._make(fn, name)
            elif is_served(served := self._meant(item)):
                from kimi_magic.tools.mcp_tool import serve

                found = serve(served)
                self.left_out.update(found.left_out)
                yield from found.tools
            else:
                yield self._make(item)

    def _meant(self, item: Any) -> Any:
        """Return the server that a name stands for; other things as they are."""
        if isinstance(item, str) and not is_served(item) and is_served(self.namespace.get(item)):
            return self.namespace[item]
        return item

    def _from_api(self, item: Mapping[str, Any]) -> Tool:
        name = _api_name(item)
        fn = self.maps.get(name, self.namespace.get(name))
        if fn is None:
            raise KimiError(f"no function for the tool {name}: add {{{name!r}: function}}")
        return self._make(fn, name, item)

    def _make(self, item: Any, name: str | None = None, schema: Any = None) -> Tool:
        # Imported late, as it brings pydantic, which prompts without tools do not need.
        from kimi_magic.tools.function_tool import make_tool

        path, params = split_params(item) if isinstance(item, str) else ("", None)
        if path == RUN_PYTHON:  # even if the notebook has a variable of this name
            item = _run_python(self.namespace)
        elif path:
            item = find(path, self.namespace)
        if is_tool(item):
            if params is not None:
                raise KimiError(f"{path} is a tool already: write {path} alone")
            return item.variant(name=proper_name(name)) if name else item
        try:
            spec = item if isinstance(item, ToolSpec) else spec_of(item)
        except Exception as error:  # noqa: BLE001 - to look at an object may run any code
            raise unfit(name or path or type(item).__name__, error) from None
        return make_tool(
            spec.function,
            name=name or spec.name or path.rpartition(".")[2] or None,
            description=None if schema else spec.description,
            schema=schema or spec.schema,
            options=spec.options,
            languages=spec.languages,
            namespace=self.namespace,
            refs=spec.refs,
            params=spec.params if params is None else params,
            path=path,
        )


def _run_python(namespace: Mapping[str, Any]) -> ToolSpec:
    """Return the built-in tool, which asks before each call."""
    from kimi_magic.tools.run_python import make_run_python

    if not isinstance(namespace, dict):
        raise KimiError(f"{RUN_PYTHON} needs a namespace that it may write to, such as globals()")
    run = make_run_python(namespace)
    options = ToolOptions(confirm=True)
    return ToolSpec(run, RUN_PYTHON, options=options, languages={"code": "python"})


def _listed(tools: Any) -> list[Any]:
    alone = callable(tools) or isinstance(tools, str | Mapping | ToolSpec) or is_tool(tools)
    alone = alone or is_served(tools)
    if not alone and not isinstance(tools, Iterable):
        raise KimiError(f"{tools!r:.60} cannot be called: offer a function, or a list of functions")
    return [tools] if alone else list(tools)


def _is_api(item: Any) -> bool:
    """Return True for a tool as the API takes it: {"type": "function", "function": {…}}."""
    return isinstance(item, Mapping) and isinstance(item.get("function"), Mapping)


def _api_name(item: Mapping[str, Any]) -> str:
    name = item["function"].get("name")
    if not isinstance(name, str) or not name:
        raise KimiError('a tool\'s schema has no name: add "name" inside "function"')
    return name


def _is_same(one: Tool, other: Tool) -> bool:
    """Return True for tools of one callable and name; equal identities may be two callables.

    Of another part of the parameters it is another tool.
    """
    if one.function is None and other.function is None:
        return one is other or one.identity() == other.identity()
    same = one.function is not None and is_same_callable(one.function, other.function)
    same = same and getattr(one, "only", None) == getattr(other, "only", None)
    return one.name == other.name and (same or one is other)
