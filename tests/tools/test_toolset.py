"""Tools under unique names, the decorator, and a call by name."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Annotated, Any

import pandas as pd
import pytest
from pydantic import Field

from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import ToolResult
from kimi_magic.testing import check_request
from kimi_magic.tools.decorator import ToolRegistry, offered, tool
from kimi_magic.tools.function_tool import make_tool
from kimi_magic.tools.tool import ToolOptions
from kimi_magic.tools.toolset import Toolset, find


@pytest.fixture(autouse=True)
def _nothing_offered() -> Iterator[None]:
    offered.clear()
    yield
    offered.clear()


def forecast(region: str, months: int = 3) -> str:
    """Forecast the sales of a region."""
    return f"{region}:{months}"


def another() -> Callable[..., Any]:
    def forecast(n: int) -> int:
        return n * 2

    return forecast


class Model:
    def __init__(self, factor: int = 1) -> None:
        self.factor = factor

    def predict(self, x: int) -> int:
        return self.factor * x

    def __call__(self, x: int) -> int:
        return -x


def test_callables_of_every_sort() -> None:
    model = Model(3)
    tools = Toolset([forecast, model.predict, functools.partial(forecast, months=9), len, model])
    assert tools.names == ["forecast", "predict", "forecast_2", "len", "Model"]
    assert tools.call("predict", '{"x": 4}').value == 12
    assert tools.call("forecast_2", '{"region": "N"}').value == "N:9"
    assert tools.call("Model", '{"x": 4}').value == -4
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "tools": tools.schemas(),
    }
    assert check_request(body) == []


def test_names_are_unique_and_predictable() -> None:
    tools = Toolset([forecast, another(), another(), lambda: 1, lambda: 2])
    assert tools.names == ["forecast", "forecast_2", "forecast_3", "lambda", "lambda_2"]
    assert [schema["function"]["name"] for schema in tools.schemas()] == tools.names
    assert tools.call("forecast_3", '{"n": 2}').value == 4
    assert "renamed from forecast" in tools.tools[1].notes
    long = [make_tool(lambda: 1, name="x" * 64), make_tool(lambda: 2, name="x" * 64)]
    assert Toolset(long).names == ["x" * 64, "x" * 62 + "_2"]


def test_the_same_callable_twice_is_one_tool() -> None:
    model = Model()
    assert Toolset([forecast, forecast, model.predict, model.predict]).names == [
        "forecast",
        "predict",
    ]
    assert Toolset([model.predict, Model().predict]).names == ["predict", "predict_2"]
    assert Toolset({"a": forecast, "b": forecast}).names == ["a", "b"]


def test_one_callable_needs_no_list() -> None:
    assert Toolset(forecast).names == ["forecast"]
    assert Toolset(make_tool(forecast)).names == ["forecast"]
    assert Toolset(Model).names == ["Model"]
    assert Toolset([]).names == []
    assert Toolset(f for f in [forecast]).names == ["forecast"]


def test_names_and_paths_mean_what_the_namespace_holds() -> None:
    namespace = {"f": forecast, "model": Model(5), "square": lambda n: n * n, "n": 3}
    tools = Toolset(["f", "model.predict", "square", "model"], namespace=namespace)
    assert tools.names == ["f", "predict", "square", "model"]
    assert tools.call("predict", '{"x": 2}').value == 10
    assert Toolset("square", namespace=namespace).names == ["square"]
    assert find("model.predict", namespace)(1) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["nothing"], "there is no nothing: define the function nothing, or correct the name"),
        (["no.thing"], "there is no no: define the function no.thing, or correct the name"),
        (["model.x.y"], "model has no x: correct the name model.x.y"),
        (["n"], "n is a int: a tool must be callable"),
        ([3], "3 cannot be called: offer a function, a method or a class"),
        (3, "3 cannot be called: offer a function, or a list of functions"),
        ({"f": 3}, "3 cannot be called: offer a function, a method or a class"),
        (
            [{"type": "function", "function": {"name": "f"}}],
            "no function for the tool f: add {'f': function}",
        ),
        (
            [{"type": "function", "function": {}}],
            'a tool\'s schema has no name: add "name" inside "function"',
        ),
        (
            [functools.partial(forecast, str(i)) for i in range(129)],
            "more than 128 tools: servers take no more, offer fewer with -T",
        ),
    ],
)
def test_what_cannot_be_offered(given: Any, message: str) -> None:
    with pytest.raises(KimiError) as caught:
        Toolset(given, namespace={"model": Model(), "n": 3})
    assert str(caught.value) == message


def test_128_tools() -> None:
    assert len(Toolset([functools.partial(forecast, str(i)) for i in range(128)])) == 128


def get_weather(city: str) -> dict[str, str]:
    return {"weather": "Sunny", "city": city}


TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Retrieve current weather information.",
            "parameters": {
                "type": "object",
                "required": ["city"],
                "properties": {"city": {"type": "string", "description": "Name of the city"}},
            },
        },
    }
]


@pytest.mark.parametrize(
    ("tools", "namespace"),
    [
        (TOOLS, {"get_weather": get_weather}),
        ([*TOOLS, {"get_weather": get_weather}], None),
        ([{"get_weather": get_weather}, *TOOLS], {}),
        (TOOLS[0], {"get_weather": get_weather}),
    ],
)
def test_the_form_of_the_models_documentation(tools: Any, namespace: Any) -> None:
    made = Toolset(tools, namespace=namespace)
    assert made.schemas() == TOOLS
    arguments = json.loads('{"city": "Beijing"}')
    assert made.call("get_weather", json.dumps(arguments)).value == get_weather(**arguments)
    assert made.call("get_weather", '{"city": 3}').error


def test_a_map_beside_schemas_may_hold_more() -> None:
    made = Toolset([*TOOLS, {"get_weather": get_weather, "f": forecast}])
    assert made.names == ["get_weather", "f"]
    assert Toolset({"my weather": get_weather}).names == ["my_weather"]


def test_a_call_by_name() -> None:
    tools = Toolset([forecast])
    result = tools.call("forecast", '{"region": "N"}', call_id="functions.forecast:0")
    assert (result.value, result.error, result.call_id) == ("N:3", None, "functions.forecast:0")
    result = tools.call("forcast", "{}", call_id="c")
    assert isinstance(result, ToolResult)
    assert result.error == "unknown tool 'forcast'; known: forecast"
    assert result.error in result.content
    assert (result.name, result.call_id) == ("forcast", "c")
    assert Toolset([]).call("f", "").error == "unknown tool 'f'; there is none"


def test_the_variables_are_those_of_the_moment() -> None:
    def rows(df: pd.DataFrame) -> int:
        return len(df)

    namespace: dict[str, Any] = {}
    tools = Toolset([rows], namespace=namespace)

    def said() -> Any:
        parameters = tools.schemas()[0]["function"]["parameters"]
        return parameters["properties"]["df"]

    assert "none now" in said()["description"]
    namespace["sales"] = pd.DataFrame({"a": [1, 2]})
    assert said()["enum"] == ["sales"]
    assert tools.call("rows", '{"df": "sales"}').value == 2
    failed = tools.call("rows", '{"df": "costs"}')
    assert failed.error
    assert "sales" in failed.content


def test_variables_of_main_where_no_namespace_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "some_frame", pd.DataFrame(), raising=False)

    def size(df: pd.DataFrame) -> int:
        return len(df)

    assert Toolset([size]).call("size", '{"df": "some_frame"}').value == 0


# The decorator.
def test_the_decorator_gives_the_function_back() -> None:
    def f(x: int) -> int:
        return x

    assert tool(f) is f
    assert tool(name="g", confirm=True, timeout=2.5, max_chars=10, parallel=True)(f) is f
    assert offered.names == ["f", "g"]
    (made,) = Toolset([f]).tools
    assert made.name == "g"
    assert made.function is f
    assert made.options == ToolOptions(confirm=True, timeout=2.5, max_chars=10, parallel=True)


def test_what_takes_no_attribute_keeps_its_options() -> None:
    model = Model(2)
    things: list[tuple[Any, str]] = [
        (model.predict, "predict"),
        (len, "len"),
        (functools.partial(forecast, "N"), "forecast"),
        (model, "Model"),
        ("a b".split, "split"),
    ]
    for thing, name in things:
        assert tool(thing, confirm=True, description="D.") is thing
        (made,) = Toolset([thing]).tools
        assert (made.name, made.description, made.options.confirm) == (name, "D.", True)
    assert not Toolset([Model().predict]).tools[0].options.confirm
    assert not Toolset(["c d".split]).tools[0].options.confirm


def test_options_survive_what_is_put_around_a_function() -> None:
    @tool(confirm=True, name="erase", description="Erase.")
    def f(path: str, *, force: bool = False) -> str:
        return path

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return f(*args, **kwargs)

    for around in (functools.partial(f, force=True), wrapper):
        (made,) = Toolset([around]).tools
        assert made.options.confirm


def test_methods_are_marked_in_the_class_and_offered_by_the_object() -> None:
    class Desk:
        @tool(confirm=True, name="file_it")
        def file(self, paper: str) -> str:
            return paper

    assert offered.names == []
    (made,) = Toolset([Desk().file]).tools
    assert (made.name, made.options.confirm) == ("file_it", True)
    assert list(made.schema()["function"]["parameters"]["properties"]) == ["paper"]


def test_a_cell_that_is_run_again_replaces_its_function() -> None:
    shell: dict[str, Any] = {"tool": tool, "__name__": "__main__"}
    exec("@tool\ndef f(x: int): return 1\n@tool\ndef g(): return 1", shell)
    exec("@tool\ndef f(y: str): return 2", shell)
    assert offered.names == ["f", "g"]
    tools = Toolset(offered)
    assert tools.call("f", '{"y": "a"}').value == 2
    exec("@tool(name='h')\ndef f(y: str): return 3", shell)
    assert offered.names == ["g", "h"]
    exec("f = tool(lambda: 1, name='f'); tool(lambda: 2, name='k')", shell)
    assert offered.names == ["f", "g", "h", "k"]


def test_a_schema_goes_with_the_function() -> None:
    parameters = TOOLS[0]["function"]["parameters"]
    tool(get_weather, name="w", description="W.", schema=parameters)
    assert Toolset(offered).schemas() == [
        {
            "type": "function",
            "function": {"name": "w", "description": "W.", "parameters": parameters},
        }
    ]
    with pytest.raises(KimiError, match="the schema of get_weather lacks city"):
        tool(get_weather, schema={"type": "object", "properties": {}})
    with pytest.raises(KimiError, match=r"^3 cannot be called: kimi.tool decorates a function$"):
        tool(3)  # type: ignore[call-overload]


def test_the_list_of_what_is_offered() -> None:
    mine = ToolRegistry()
    model = Model()
    assert mine.add(model.predict) == "predict"
    assert mine.add(forecast, "the forecast") == "the_forecast"
    assert mine.add(forecast) == "forecast"
    assert mine.names == ["forecast", "predict", "the_forecast"]
    assert [spec.name for spec in mine] == mine.names
    assert "predict" in mine
    assert len(mine) == 3
    assert Toolset(mine).names == mine.names
    mine.remove(model.predict)
    mine.remove("forecast")
    assert mine.names == ["the_forecast"]
    with pytest.raises(KimiError, match=r"^predict is not offered; offered: the_forecast$"):
        mine.remove("predict")
    with pytest.raises(KimiError, match=r"^3 cannot be called"):
        mine.add(3)  # type: ignore[arg-type]
    mine.clear()
    assert not mine.names
    for i in range(128):
        mine.add(forecast, f"f{i}")
    mine.add(forecast, "f0")
    with pytest.raises(KimiError, match="more than 128 tools"):
        mine.add(forecast, "one_more")
    assert offered.names == []


def test_a_call_runs_in_the_callers_thread() -> None:
    tools = Toolset({"where": threading.get_ident})
    assert tools.call("where", "").value == threading.get_ident()


def test_importing_the_toolset_imports_no_pydantic() -> None:
    code = "import sys, kimi_magic.tools.toolset; print(*{'pydantic', 'griffe'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_decorating_a_function_imports_no_pydantic() -> None:
    code = """
import sys
import kimi_magic as kimi
@kimi.tool(confirm=True)
def f(x: int): ...
print(*{'pydantic', 'griffe', 'jsonschema'} & set(sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


# What cannot be offered, and why.
class Boom:
    """A thing whose signature is computed, and fails."""

    @property
    def __signature__(self) -> Any:
        raise ZeroDivisionError("no\n  way")

    def __call__(self, x: int) -> int:
        return x


class Ghost:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"never {name}")

    def __call__(self, x: int) -> int:
        return x


class Owner:
    @property
    def tool(self) -> Any:
        raise KeyError("gone")


def exiting() -> Any:
    class Exits(type):
        def __repr__(cls) -> str:
            raise SystemExit(3)

    class Kind(metaclass=Exits): ...

    def f(x: Any) -> None: ...

    f.__annotations__ = {"x": Kind()}
    Kind.__repr__ = lambda _: (_ for _ in ()).throw(SystemExit(3))  # type: ignore[method-assign]
    return f


def same_alias(
    x: Annotated[int, Field(alias="y")],
    y: int,
) -> None: ...


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["boom"], r"boom cannot be offered: ZeroDivisionError: no way"),
        ([Boom()], r"Boom cannot be offered: ZeroDivisionError: no way"),
        ([Ghost()], r"Ghost cannot be offered: RuntimeError: never __kimi_tool__"),
        (["owner.tool"], r"owner\.tool cannot be offered: KeyError: 'gone'"),
        ([exiting()], r"f cannot be offered: SystemExit: 3"),
        ([same_alias], r"same_alias cannot be offered: x has the name of another parameter .*, y"),
        (["forecast(regoin)"], r"forecast has no parameter regoin: did you mean region\?"),
        (["forecast(a, b)"], r"forecast has no parameter a, b: it takes region, months"),
        (["forecast(months)"], r"forecast needs region, which params leaves out: add it"),
        (["forecast(region"], r"forecast\(region is no function: write NAME, or NAME\(parameter"),
        (["forecast(3)"], r"params has '3': give names of parameters"),
        (["(region)"], r"\(region\) is no function"),
    ],
)
def test_what_cannot_be_offered_is_named_in_one_line(given: Any, message: str) -> None:
    namespace = {"forecast": forecast, "boom": Boom(), "owner": Owner()}
    with pytest.raises(KimiError, match=f"^{message}") as caught:
        Toolset([lambda: 1, *given], namespace=namespace)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_part_of_the_parameters_by_name() -> None:
    namespace = {"forecast": forecast, "model": Model(5)}
    names = ["forecast(region)", "forecast(region, months)", "model.predict( x )", "forecast"]
    tools = Toolset(names, namespace=namespace)
    assert tools.names == ["forecast", "forecast_2", "predict", "forecast_3"]
    parts = [list(s["function"]["parameters"]["properties"]) for s in tools.schemas()]
    assert parts == [["region"], ["region", "months"], ["x"], ["region", "months"]]
    assert tools.call("forecast", '{"region": "N"}').value == "N:3"
    assert "unknown field" in tools.call("forecast", '{"region": "N", "months": 9}').content


def test_a_part_of_the_parameters_by_the_decorator() -> None:
    tool(forecast, params=["region"])
    for given in (forecast, list(offered), [offered.resolve("forecast", {})]):
        (schema,) = Toolset(given, namespace={}).schemas()
        assert list(schema["function"]["parameters"]["properties"]) == ["region"]
    whole = offered.resolve("forecast(region, months)", {})
    (schema,) = Toolset([whole], namespace={}).schemas()
    assert len(schema["function"]["parameters"]["properties"]) == 2, "the line says more"
    for wrong in (["nothing"], ["months"], [3], 3):
        with pytest.raises(KimiError, match=r"forecast|params"):
            tool(forecast, params=wrong)  # type: ignore[arg-type]


def test_only_large_tools_are_remarked_on() -> None:
    def large(a: int, b: int, c: int = 1) -> None: ...
    def small(a: int) -> None: ...

    large.__doc__ = "A long text. " * 200
    tools = Toolset(
        ["m.large", "small"], namespace={"m": SimpleNamespace(large=large), "small": small}
    )
    assert list(tools.remarks) == ["large"]
    assert tools.remarks["large"].startswith("large takes about 7")
    assert '`-T "m.large(a, b)"` or `@kimi.tool(params=["a", "b"])`' in tools.remarks["large"]


def test_a_failed_call_says_which_text_names_a_variable() -> None:
    def top(rows, word: str = "a"):  # type: ignore[no-untyped-def]
        return rows[0].missing, word

    namespace = {"rows": [1], "n": 3}
    tools = Toolset([top], namespace=namespace)
    failed = tools.call("top", '{"rows": "n", "word": "rows"}').content
    assert (
        "rows got the text 'n', not the variable of this name: the variables it takes are rows."
        in failed
    )
    assert (
        "word got the text 'rows', not the variable of this name: it takes no variables." in failed
    )
    assert "got the text" not in tools.call("top", '{"rows": "rows", "word": "b"}').content
