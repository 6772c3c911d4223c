"""Figures and image files as pictures that a model can look at: PNG, bounded, without metadata."""

from __future__ import annotations

import base64
import binascii
import math
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from kimi_magic.context.summaries.summary import summarize
from kimi_magic.core.errors import PromptError
from kimi_magic.core.messages import ImagePart, Output
from kimi_magic.core.stdout import silenced
from kimi_magic.core.text import clip
from kimi_magic.core.time_limit import USER_ERRORS, TimeLimit, call_within

__all__ = [
    "captioned",
    "drawn_anew",
    "is_picture",
    "picture",
    "pictures_in",
    "pngs",
    "read_picture",
    "redraw",
    "with_caption",
]

LONGEST_SIDE = 1600  # pixels
MAX_FILE = 50_000_000
MAX_PIXELS = 80_000_000  # a small file may unfold to any size; Pillow warns a little later
# Pillow hands EPS to Ghostscript, which runs the file as a program, and WMF to Windows.
FORMATS = "PNG JPEG MPO GIF WEBP AVIF JPEG2000 TIFF BMP DIB PPM ICO ICNS TGA PCX".split()
MOST_MEMBERS, MOST_FIGURES = 1000, 5  # of a collection that a tool returned
SECONDS = 20.0  # a renderer of plotly or altair starts a browser or an engine of its own
TOO_LARGE = f"{{}} is larger than {MAX_FILE // 1_000_000} MB: make it smaller."
NEEDS_PILLOW = "Pictures need Pillow 10.1 or newer: `pip install -U pillow`."


def is_picture(value: object) -> bool:
    """Return True for a figure of matplotlib, plotly or altair, or an image of Pillow."""
    return _renderer(value) is not None


def picture(value: object, *, tokens: int = 1500) -> ImagePart | None:
    """Draw a figure; None where it is none, or cannot be drawn here.

    The summary of ``tokens`` stands in for it where a model does not see.
    """
    render = _renderer(value)
    if render is None:
        return None
    try:
        with silenced():
            drawn: ImagePart = call_within(lambda: _png(render(value)), TimeLimit(SECONDS))
    except (*USER_ERRORS, ImportError):
        return None
    return replace(drawn, instead=summarize(value, tokens=tokens))


def pictures_in(value: object) -> tuple[ImagePart, ...]:
    """Draw a figure, or the first figures of a list, a tuple or the values of a dict."""
    kind = type(value)
    members: Iterable[object] = (value,)
    if kind in (list, tuple):
        members = value  # type: ignore[assignment] # told by its type
    elif kind is dict:
        members = value.values()  # type: ignore[attr-defined] # as above
    figures = islice(filter(is_picture, islice(members, MOST_MEMBERS)), MOST_FIGURES)
    until = time.monotonic() + SECONDS
    in_time = takewhile(lambda _: time.monotonic() < until, figures)
    return tuple(filter(None, map(picture, in_time)))


def pngs(outputs: Iterable[Output]) -> list[Any]:
    """Return the PNG or JPEG of each output that has one, in base64."""
    found = (output.data.get("image/png") or output.data.get("image/jpeg") for output in outputs)
    return [image for image in found if image]


def read_picture(path: str) -> ImagePart:
    """Read an image file.

    Raises
    ------
    PromptError
        It cannot be read, or is no image.
    """
    name = clip(path, 120)
    return _drawn(lambda: _content(Path(path).expanduser(), name), name)


def drawn_anew(image: ImagePart) -> ImagePart:
    """Return a picture of the user's own as ours are: PNG, bounded, without metadata.

    Raises
    ------
    PromptError
        It cannot be read, or is no image.
    """
    return _drawn(lambda: base64.b64decode(image.data), "A picture in the prompt")


def _drawn(read: Callable[[], bytes], name: str) -> ImagePart:
    try:
        return _png(read())
    except OSError as error:
        why = error.strerror or "it is no image that Pillow reads"
        raise PromptError(f"{name} cannot be sent as an image: {why}.") from None
    except ImportError:
        raise PromptError(NEEDS_PILLOW) from None
    except PromptError:
        raise
    except USER_ERRORS as error:
        why = clip(str(error).rstrip("."), 120)
        raise PromptError(f"{name} cannot be sent as an image: {why}.") from None


def _content(file: Path, name: str) -> bytes:
    status = file.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise PromptError(f"{name} is no file: a pipe or a device has no end.")
    if status.st_size > MAX_FILE:
        raise PromptError(TOO_LARGE.format(name))
    with file.open("rb") as opened:
        content = opened.read(MAX_FILE + 1)  # it may have grown, or told another size
    if len(content) > MAX_FILE:
        raise PromptError(TOO_LARGE.format(name))
    return content


def redraw(encoded: Any) -> ImagePart | None:
    """Make a picture of an output's PNG or JPEG in base64; None where that is no image."""
    try:
        return _png(base64.b64decode(encoded))
    except (*USER_ERRORS, ImportError, binascii.Error):
        return None


def captioned(caption: str, outputs: Iterable[Any]) -> Iterator[str | ImagePart]:
    """Yield the pictures among outputs in base64, each behind its caption."""
    for image in filter(None, map(redraw, outputs)):
        yield from with_caption(caption, image)


def with_caption(caption: str, image: ImagePart) -> tuple[str, ImagePart]:
    """Return a picture behind its caption, which tells its size."""
    return f"{caption} ({image.width} × {image.height} pixels):\n", image


def _renderer(value: object) -> Callable[[Any], bytes] | None:
    """Return the function that draws a value, by its type alone: nothing is imported or asked."""
    kind = type(value)
    for module, names, render in _RENDERERS:
        loaded = sys.modules.get(module)
        types = tuple(t for name in names if isinstance(t := getattr(loaded, name, None), type))
        if types and issubclass(kind, types):
            return render
    return None


def _draw_matplotlib(value: Any) -> bytes:
    figure = value.get_figure() if hasattr(value, "get_xlim") else value
    file = BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    return file.getvalue()


def _draw_plotly(value: Any) -> bytes:
    drawn: bytes = value.to_image(format="png")
    return drawn


def _draw_altair(value: Any) -> bytes:
    file = BytesIO()
    value.save(file, format="png")
    return file.getvalue()


def _draw_pillow(value: Any) -> bytes:
    file = BytesIO()
    _as_shown(value).save(file, format="PNG")
    return file.getvalue()


_RENDERERS: tuple[tuple[str, tuple[str, ...], Callable[[Any], bytes]], ...] = (
    ("matplotlib.figure", ("FigureBase",), _draw_matplotlib),
    ("matplotlib.axes", ("Axes",), _draw_matplotlib),
    ("plotly.basedatatypes", ("BaseFigure",), _draw_plotly),
    ("altair", ("TopLevelMixin",), _draw_altair),
    ("PIL.Image", ("Image",), _draw_pillow),
)


def _png(data: bytes) -> ImagePart:
    """Return an image as PNG, no side longer than the limit.

    The pixels are drawn anew: of a file's metadata only the orientation counts.
    """
    from PIL import Image, ImageOps

    Image.init()
    readable = [name for name in FORMATS if name in Image.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is lower
        opened = Image.open(BytesIO(data), formats=readable)
    with opened as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has more than {MAX_PIXELS // 1_000_000} million pixels")
        upright: Image.Image = image
        if image.mode not in ("L", "RGB", "RGBA", "CMYK"):
            # Pillow shrinks palettes without smoothing.
            upright = _as_shown(ImageOps.exif_transpose(image))
        upright.thumbnail((LONGEST_SIDE, LONGEST_SIDE))  # a JPEG is decoded no larger than that
        upright = _as_shown(ImageOps.exif_transpose(upright))
        bare = Image.new(upright.mode, upright.size)
        bare.paste(upright)
    file = BytesIO()
    bare.save(file, format="PNG", optimize=True)
    width, height = bare.size
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    return ImagePart(encoded, width=width, height=height)


def _as_shown(image: Any) -> Any:
    """Return an image in 8 bits a channel, as a viewer shows it; Pillow alone would clip values."""
    if image.mode == "F":
        low, high = image.getextrema()
        scale = 255 / (high - low) if 0 < high - low < math.inf else 1.0
        image = image.point(lambda value: value * scale + -low * scale).convert("L")
    elif image.mode.startswith("I"):  # PNG: grey in 16 bits
        image = image.convert("I").point(lambda value: value * (1 / 257) + 0).convert("L")
    elif image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
