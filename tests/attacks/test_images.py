"""Aim: have a file that is sent as an image run as a program, fill the memory, or never end."""

from __future__ import annotations

import base64
import io
import os
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from PIL import Image

import kimi_magic as kimi
from kimi_magic.context import pictures
from kimi_magic.context.pictures import read_picture, redraw
from kimi_magic.core.errors import PromptError
from kimi_magic.session import Session

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/tmp/x) (w) file\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + rows + chunk(b"IEND", b"")


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, kind, **options)
    return file.getvalue()


HOSTILE = {
    "a program for Ghostscript": EPS,
    "a DOS header before one": b"\xc5\xd0\xd3\xc6"
    + struct.pack("<II", 32, len(EPS))
    + bytes(20)
    + EPS,
    "a metafile": b"\xd7\xcd\xc6\x9a" + bytes(60),
    "a drawing": SVG,
    "a document": b"%PDF-1.7\n1 0 obj<</JS(app.alert(1))>>endobj\n",
    "100 million pixels": png(10_000, 10_000),
    "180 million pixels": png(18_000, 10_000),
    "4 thousand million million pixels": png(2**31 - 1, 2**31 - 1),
    "no pixels": png(0, 0),
    "text without an end": png(9, 9, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**25)))] * 9),
    "a truncated JPEG": saved("JPEG")[:300],
    "a truncated PNG": saved("PNG")[:45],
    "nothing": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_that_is_no_picture(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Input: programs, documents, bombs and torn files, as a file and as a part of a prompt.

    Holds: one line says why, nothing is started or sent, no warning is shown.
    """

    def start(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    for name in ("Popen", "check_call", "run"):
        monkeypatch.setattr(subprocess, name, start)
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(PromptError, match=r"x\.png cannot be sent as an image: ") as refused:
        read_picture(str(path))
    assert len(str(refused.value).splitlines()) == 1
    encoded = base64.b64encode(content).decode()
    assert redraw(encoded) is None
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded or 'AAAA'}"}}
    with pytest.raises(PromptError, match=r"picture in the prompt cannot be sent"):
        kimi.ask([part], endpoint="http://127.0.0.1:9/v1", model="kimi-k3", show=False)


def test_a_file_that_is_no_file(tmp_path: Path) -> None:
    """Input: pipes, devices, folders, circles of links. Holds: one line, at once."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    names = [*map(str, (tmp_path, tmp_path / "pipe", tmp_path / "circle")), "/dev/zero", "a\0b"]
    for name in [*names, "x" * 5000, "~nobody-of-this-name/x.png", ""]:
        with pytest.raises(PromptError) as refused:
            read_picture(name)
        assert len(str(refused.value).splitlines()) == 1
        assert len(str(refused.value)) < 300


def test_a_file_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Input: a file that tells a small size and has more. Holds: no more is read than may be."""
    monkeypatch.setattr(pictures, "MAX_FILE", 1000)
    path = tmp_path / "x.png"
    path.write_bytes(bytes(10_000))
    real = Path.stat

    def small(self: Path, **options: bool) -> os.stat_result:
        status = list(real(self, **options))
        status[6] = 10
        return os.stat_result(status)

    monkeypatch.setattr(Path, "stat", small)
    with pytest.raises(PromptError, match="larger than"):
        read_picture(str(path))


def test_a_film(tmp_path: Path) -> None:
    """Input: a thousand frames, of which each is small. Holds: the first one goes."""
    frames = [Image.new("P", (60, 40), index) for index in range(250)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:] * 4)
    image = read_picture(str(tmp_path / "x.gif"))
    assert (image.width, image.height) == (60, 40)
