"""Standard streams as they may be: closed, full, or in an encoding that lacks what is to be said."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TextIO

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def open_streams() -> None:
    """Streams to nowhere in place of those that the program was started without, as by a daemon.

    What the encoding of stdout or stderr lacks is written as an escape, so that no name of a file stops the program.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            target: int | str = os.devnull
            try:
                os.fstat(descriptor)
            except OSError:
                target = os.open(os.devnull, os.O_RDWR)  # takes the lowest number, which no file of a run may have
            setattr(sys, name, open(target, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            # A reader of a file or a pipe sees each line when it is written.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)


def silence(stream: TextIO) -> None:
    """Send what is still to be written nowhere: Python would try again when it ends, and then end with status 120."""
    with suppress(OSError, ValueError):  # of a stream that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say_error(line: str) -> None:
    """A line on stderr; where that takes nothing either, the status says it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def is_full(error: OSError) -> bool:
    """Whether a disk, or what a stream leads to, takes no more."""
    return error.errno in _FULL
