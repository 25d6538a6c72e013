"""Stopping when asked to: Ctrl-C ends a command at any moment; in training it and SIGTERM become a flag that is looked
at between steps."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

STATUS = 128 + signal.SIGINT
_PATIENCE = 2.5  # seconds in which an interrupted program should have ended, with what it does at its end


class Interrupts:
    """Within its block Ctrl-C ends the program `name` with status 130 and one line, whatever the libraries do with it.

    While `nothing_to_undo`, as during imports, it ends there and then. After that KeyboardInterrupt is raised, and
    again from time to time until the block has ended or a `resumable` one has: many a library takes it for an error of
    its own. A second Ctrl-C ends it at once.
    """

    _innermost: Interrupts | None = None

    def __init__(self, name: str, nothing_to_undo: bool = False) -> None:
        self.name, self.nothing_to_undo = name, nothing_to_undo
        self.received = False
        self._reminded, self._over = False, threading.Event()
        self._previous: tuple[Any, Any] | None = None

    def __enter__(self) -> Interrupts:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where it is to be ignored
        ):
            self._previous = signal.signal(signal.SIGINT, self._receive), sys.unraisablehook
            sys.unraisablehook = self._unraisable
        self._outer, Interrupts._innermost = Interrupts._innermost, self
        return self

    def __exit__(self, *error: object) -> None:
        self.on_its_way()
        Interrupts._innermost = self._outer
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous[0])
            sys.unraisablehook = self._previous[1]

    def on_its_way(self) -> None:
        """The interrupt has got through to us: it does not come again, into what is done at the end."""
        self._over.set()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self._reminded = self.received and not self._reminded, False
        if self.nothing_to_undo or again:
            os.write(2, f"{self.name}: interrupted\n".encode(errors="replace"))
            os._exit(STATUS)
        if not self.received:
            self.received = True
            threading.Thread(target=self._remind, daemon=True).start()
        raise KeyboardInterrupt

    def _remind(self) -> None:
        while not self._over.wait(_PATIENCE):
            self._reminded = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _unraisable(self, unraisable: Any) -> None:
        """Say nothing of a KeyboardInterrupt that a destructor cannot pass on: it comes again."""
        if not isinstance(unraisable.exc_value, KeyboardInterrupt) and self._previous is not None:
            self._previous[1](unraisable)


@contextmanager
def resumable(run: Path, is_begun: Callable[[], bool]) -> Iterator[None]:
    """Within its block an interrupt says that `run` can be resumed, if there is something to resume by then."""
    try:
        yield
    except KeyboardInterrupt:
        if Interrupts._innermost is not None:
            Interrupts._innermost.on_its_way()
        raise KeyboardInterrupt(f"continue with --resume {run}" if is_begun() else "") from None


class StopSignals:
    """Within its block the first SIGINT or SIGTERM sets `received`; a second one acts as usual, at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there only
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
