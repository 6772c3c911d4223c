"""Figures and files as pictures: bounded, without metadata, only for models that see."""

from __future__ import annotations

import base64
import io
import sys
import types
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

import kimi_magic as kimi
from kimi_magic.context.pictures import LONGEST_SIDE, is_picture, picture, read_picture, redraw
from kimi_magic.core.errors import KimiError, PromptError
from kimi_magic.core.messages import ImagePart
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel

RED = Image.new("RGB", (40, 30), "red")


def opened(image: ImagePart | None) -> Image.Image:
    assert image is not None
    found = Image.open(io.BytesIO(base64.b64decode(image.data)))
    assert found.format == "PNG"
    assert (image.width, image.height) == found.size
    return found


def figure() -> Any:
    drawn, axes = plt.subplots(figsize=(4, 3))
    axes.plot([1, 2, 4])
    axes.set_title("Growth")
    plt.close(drawn)
    return drawn


def test_what_can_be_drawn() -> None:
    drawn = figure()
    for value in (drawn, drawn.axes[0], RED, Image.new("RGBA", (5, 5))):
        assert is_picture(value)
        opened(picture(value))
    for value in (None, "x.png", drawn.axes, object):
        assert not is_picture(value)
        assert picture(value) is None


def test_a_figure_has_its_summary_for_models_that_do_not_see() -> None:
    image = picture(figure())
    assert image is not None
    assert "Growth" in image.text


@pytest.mark.parametrize(
    ("module", "name", "render"),
    [
        ("plotly.basedatatypes", "BaseFigure", "to_image"),
        ("altair", "TopLevelMixin", "save"),
    ],
)
def test_libraries_draw_with_their_own_renderer(
    module: str, name: str, render: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_image(_: Any, format: str) -> bytes:  # noqa: A002 - plotly's own name
        file = io.BytesIO()
        RED.save(file, format)
        return file.getvalue()

    def save(chart: Any, file: io.BytesIO, format: str) -> None:  # noqa: A002 - altair's own name
        file.write(to_image(chart, format))

    base = type(name, (), {"to_image": to_image, "save": save})
    loaded = types.ModuleType(module)
    setattr(loaded, name, base)
    monkeypatch.setitem(sys.modules, module, loaded)
    assert opened(picture(type("Chart", (base,), {})())).size == RED.size

    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("no renderer installed")

    assert picture(type("Chart", (base,), {render: fails})()) is None


def test_a_large_image_is_bounded() -> None:
    assert opened(picture(Image.new("L", (9000, 300)))).size == (LONGEST_SIDE, 53)


def test_a_file_loses_its_metadata(tmp_path: Path) -> None:
    secret = PngImagePlugin.PngInfo()
    secret.add_text("Author", "Ada of 221B")
    RED.save(tmp_path / "a.png", pnginfo=secret)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x8298] = "Ada of 221B"
    RED.save(tmp_path / "b.jpg", exif=exif, comment=b"Ada of 221B")
    for name, size in (("a.png", (40, 30)), ("b.jpg", (30, 40))):
        image = read_picture(str(tmp_path / name))
        assert opened(image).size == size
        assert opened(image).info == {}
        assert b"Ada" not in base64.b64decode(image.data)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_file_that_is_no_image(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(PromptError, match=r"x\.png .*image") as failed:
        read_picture(str(tmp_path / "x.png"))
    assert len(str(failed.value).splitlines()) == 1
    with pytest.raises(PromptError, match="No such file"):
        read_picture(str(tmp_path / "nothing.png"))
    assert redraw(base64.b64encode(content)) is None


def test_a_file_without_an_end(tmp_path: Path) -> None:
    for name in ("/dev/null", "/dev/zero"):
        with pytest.raises(PromptError, match=r"^/dev/\w+ is no file: "):
            read_picture(name)


@pytest.mark.parametrize("mode", ["1", "CMYK", "HSV", "YCbCr", "P", "PA", "La", "I", "I;16", "F"])
def test_an_image_of_any_mode_is_drawn(mode: str) -> None:
    opened(picture(Image.new(mode, (4, 3))))


def test_values_of_more_than_8_bits_are_scaled(tmp_path: Path) -> None:
    ramp = Image.new("I;16", (3, 1))
    floats = Image.new("F", (3, 1))
    for x in range(3):
        ramp.putpixel((x, 0), x * 32768 - (x == 2))
        floats.putpixel((x, 0), x / 2)
    ramp.save(tmp_path / "x.png")
    for image in (picture(ramp), read_picture(str(tmp_path / "x.png")), picture(floats)):
        shown = opened(image)
        colours = [shown.getpixel((x, 0)) for x in range(3)]
        assert colours[0] == (0, 0, 0)
        assert colours[1] in ((127,) * 3, (128,) * 3)
        assert colours[2] == (255, 255, 255)


URL = "data:image/png;base64," + (picture(RED) or ImagePart("")).data
PARTS: list[dict[str, Any]] = [
    {"type": "text", "text": "What is it?"},
    {"type": "image_url", "image_url": {"url": URL}},
]


def test_a_prompt_of_parts(session: Session) -> None:
    with ScriptedServer("moonshot-k3") as server:
        kimi.add_endpoint(name="x", base_url=server.base_url, like="moonshot")
        server.reply("Red.")
        reply = kimi.ask(PARTS, endpoint="x", chat="main", show=False)
        server.reply("Still red.")
        kimi.ask("Really?", endpoint="x", chat="main", show=False)
        with pytest.raises(KimiError, match=r"^kimi-k2-thinking reads no images: .*-m kimi-k3"):
            kimi.ask(PARTS, endpoint="x", model="kimi-k2-thinking", show=False)
        bodies = [request.body for request in server.requests]
    assert bodies[0]["messages"][1]["content"] == PARTS
    assert bodies[1]["messages"][1]["content"] == PARTS, "it stays in the chat"
    assert TurnRecord.from_dict(reply.record.to_dict()) == reply.record
    with pytest.raises(KimiError, match="data URL"):
        kimi.ask([{"type": "image_url", "image_url": {"url": "https://host/x.png"}}])


def test_a_picture_in_a_prompt_loses_its_metadata(session: Session) -> None:
    exif = Image.Exif()
    exif[0x8298] = "Ada of 221B"
    file = io.BytesIO()
    RED.save(file, "JPEG", exif=exif)
    url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    with ScriptedServer("moonshot-k3") as server:
        kimi.add_endpoint(name="x", base_url=server.base_url, like="moonshot")
        server.reply("Red.")
        kimi.ask([{"type": "image_url", "image_url": {"url": url}}], endpoint="x", show=False)
    (part,) = server.requests[0].body["messages"][1]["content"]
    sent = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    assert Image.open(io.BytesIO(sent)).size == RED.size
    assert b"Ada" not in sent


def test_a_chat_with_a_picture_goes_on_with_a_model_that_does_not_see(session: Session) -> None:
    with ScriptedServer("moonshot-k3") as server:
        kimi.add_endpoint(name="x", base_url=server.base_url, like="moonshot")
        server.reply("Red.")
        kimi.ask(PARTS, endpoint="x", chat="main", show=False)
    with ScriptedServer() as server:
        server.reply("OK")
        kimi.ask("And?", endpoint=server.base_url, chat="main", show=False)
    said = server.requests[-1].body["messages"][1]["content"]
    assert [part["type"] for part in said] == ["text", "text"]
    assert "picture" in said[1]["text"]


def test_figures_in_a_cell(kernel: Kernel, asked: ScriptedServer, tmp_path: Path) -> None:
    RED.save(tmp_path / "red.png")
    kernel.run("%matplotlib inline\nimport matplotlib.pyplot as plt")
    kernel.run("fig, axes = plt.subplots()\naxes.plot([1, 2])\naxes.set_title('Growth')\nfig")
    number = int(kernel.run("print(len(In) - 1)").stdout) - 1
    options = f"--no-history -v fig --image {tmp_path}/red.png --cells {number}"
    cell = f"%%kimi {{}} {options}\nLook at {{{{{{{{ fig }}}}}}}}."
    with ScriptedServer("moonshot-k3") as server:
        kernel.run(f"kimi.add_endpoint(name='x', base_url={server.base_url!r}, like='moonshot')")
        server.reply("I see.")
        kernel.run(cell.format("-e x -m kimi-k3"))
        content = server.requests[0].body["messages"][-1]["content"]
        kinds = [part["type"] for part in content]
        drawn = kinds.count("image_url")
        # IPython keeps the outputs of cells since 9.1.
        keeps = kernel.run("print(hasattr(get_ipython().history_manager, 'outputs'))").stdout
        assert drawn >= 3 + (keeps == "True\n"), "the file, the outputs, the variable, the value"
        assert content[-1]["text"] == "."
        dry = kernel.run(cell.format("-e x -m kimi-k3 --dry-run"))
        assert dry.stdout.count("[picture, ") == drawn
        assert len([shown for shown in dry.displays if "image/png" in shown]) == drawn
        assert len(server.requests) == 1
    asked.reply("I read.")
    kernel.run("%%kimi -v fig\nLook at {{ fig }}.")
    told = asked.requests[0].body["messages"][-1]["content"]
    assert told.count("Growth") == 2, "text for a model that does not see"


def test_a_figure_that_a_tool_returns_goes_back_as_a_picture(kernel: Kernel) -> None:
    kernel.run(
        "%matplotlib inline\nimport matplotlib.pyplot as plt\n"
        "def draw():\n    'Draw.'\n    fig, axes = plt.subplots()\n    axes.plot([1, 2])\n"
        "    plt.close(fig)\n    return fig"
    )
    with ScriptedServer("moonshot-k3") as server:
        kernel.run(f"kimi.add_endpoint(name='x', base_url={server.base_url!r}, like='moonshot')")
        server.reply(reasoning="Draw.", tool_calls=[{"name": "draw", "arguments": {}}])
        server.reply("A line.")
        kernel.run("%%kimi -e x -T draw\nDraw.", allow_stdin=True)
        *_, result, seen = server.requests[1].body["messages"]
    assert result["role"] == "tool"
    assert [part["type"] for part in seen["content"]] == ["text", "image_url"]
    assert "draw" in seen["content"][0]["text"]


@pytest.mark.parametrize("returned", ["figure", "axes", "image", "list", "dict", "nothing", "text"])
def test_figures_that_a_tool_returns_outside_of_a_kernel(session: Session, returned: str) -> None:
    """Nothing shows them there: they are drawn for a model that sees, and for no other."""
    figure = Figure()
    axes = figure.subplots()
    axes.set_title("Growth")
    values = {
        "figure": figure,
        "axes": axes,
        "image": RED,
        "list": [figure, 5, RED],
        "dict": {"a": RED},
        "nothing": None,
        "text": "red",
    }

    def draw() -> Any:
        """Draw."""
        return values[returned]

    wanted = {"list": 2, "nothing": 0, "text": 0}.get(returned, 1)
    for model, drawn in (("kimi-k3", wanted), ("kimi-k2-thinking", 0)):
        dialect = "moonshot-k3" if model == "kimi-k3" else "moonshot"
        with ScriptedServer(dialect, models=[model]) as server:
            kimi.add_endpoint(name="x", base_url=server.base_url, like="moonshot", model=model)
            server.reply(reasoning="Draw.", tool_calls=[{"name": "draw", "arguments": {}}])
            server.reply("A line.")
            reply = kimi.ask("Draw.", endpoint="x", tools=draw, chat=model, show=False)
            server.reply("Yes.")
            kimi.ask("Is it?", endpoint="x", chat=model, show=False)
            first, last = (request.body["messages"] for request in server.requests[-2:])
        assert last[: len(first)] == first, "it stays in the chat"
        contents = [m.get("content") for m in first]
        found = [p for c in contents if isinstance(c, list) for p in c]
        assert [p["type"] for p in found] == ["text", "image_url"] * drawn
        assert all("draw made" in p["text"] for p in found[::2])
        assert TurnRecord.from_dict(reply.record.to_dict()) == reply.record
        (result,) = reply.steps[0].tool_results
        assert (result.content == "red") is (returned == "text")
