"""Text of mesh files, whose names and comments may be in any encoding."""

from __future__ import annotations

import codecs
import re

import numpy as np

from sdfgan.meshes.formats.polygons import MeshFormatError

COMMENT = re.compile(rb"(?:(?<!\d\.)#|#(?!INF|IND|QNAN|SNAN))[^\r\n]*", re.I)  # 1.#INF is a number that is none


def plain_text(data: bytes) -> bytes:
    """Without a byte order mark; UTF-16 as UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def quoted(line: bytes) -> str:
    """The beginning of a line, for a message."""
    text = " ".join(line.decode("ascii", "replace").split())
    return f'"{text[:60]}..."' if len(text) > 60 else f'"{text}"'


def floats(words: list[bytes], what: str) -> np.ndarray:
    """[N] float64. Raises MeshFormatError, naming the first word that is no number."""
    try:
        _refuse_underscores(words)
        return np.array(list(map(float, words)), np.float64)
    except ValueError:
        raise MeshFormatError(f"{what} must be numbers, got {quoted(_first_bad(words, float))}") from None


def integers(words: list[bytes], what: str) -> np.ndarray:
    """[N] int64. Raises MeshFormatError, naming the first word that is none."""
    try:
        _refuse_underscores(words)
        return np.array(list(map(int, words)), np.int64)
    except (ValueError, OverflowError):
        raise MeshFormatError(f"{what} must be integers, got {quoted(_first_bad(words, int))}") from None


def _refuse_underscores(words: list[bytes]) -> None:
    """ValueError for 1_000, which Python takes for a number."""
    if b"_" in b" ".join(words):
        raise ValueError


def _first_bad(words: list[bytes], kind: type) -> bytes:
    for word in words:
        try:
            _refuse_underscores([word])
            np.array(kind(word), np.float64 if kind is float else np.int64)
        except (ValueError, OverflowError):
            return word
    raise AssertionError("all words are numbers")
