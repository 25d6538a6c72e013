"""A progress bar with a rate and the time left; plain lines now and then where the output is not a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_TO_FIRST_LINE = 1.0


class Bar:
    """What `progress` yields."""

    def __init__(self, total: int, description: str, done: int, shown: Progress | None, silent: bool) -> None:
        self._silent = silent
        self.total, self.done, self.status = total, done, ""
        self._description = description
        self._started_at, self._started = time.monotonic(), done
        self._next_line = self._started_at + _SECONDS_TO_FIRST_LINE
        self._shown, self._has_spoken = shown, False
        self._task = None if shown is None else shown.add_task(description, total=total, completed=done, status="")

    def advance(self, n: int = 1, status: str = "") -> None:
        """`n` more are done; `status` is shown beside the bar until the next one."""
        self.done += n
        self.status = status or self.status
        if self._silent:
            return
        if self._shown is not None and self._task is not None:
            self._shown.update(self._task, completed=self.done, status=self.status)
        elif time.monotonic() > self._next_line or self.done == self.total:
            self._line()

    def first_line(self) -> None:
        """Say what has begun, and how fast it is if that is known, unless something has been said of it."""
        if not self._has_spoken and self.done == self._started:
            _say(f"{self._description} {self.done}/{self.total}")  # the line after the first step says the rest
        elif not self._has_spoken:
            self._line()

    def _line(self) -> None:
        now = time.monotonic()
        self._next_line, self._has_spoken = now + _SECONDS_BETWEEN_LINES, True
        rate = (self.done - self._started) / max(now - self._started_at, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        _say(f"{self._description} {self.done}/{self.total}  {rate:.2f}/s  {_clock(left)} left  {self.status}")


@contextmanager
def progress(total: int, description: str, done: int = 0, shown: bool = True) -> Iterator[Bar]:
    """A bar from `done` to `total`, if it is to be shown; call `advance` on what this yields."""
    shown = shown and sys.stdout is not None and not sys.stdout.closed  # as a program without a console has it
    if not shown or not sys.stdout.isatty():
        bar = Bar(total, description, done, None, silent=not shown)
        with _later(bar.first_line if shown else None):
            yield bar
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate("{task.speed}"),
        TimeRemainingColumn(), TextColumn("{task.fields[status]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console()) as display:
        yield Bar(total, description, done, display, silent=False)


@contextmanager
def announced(what: str, shown: bool = True) -> Iterator[None]:
    """Say `what` is done within the block if that takes longer than a second."""
    with _later((lambda: _say(what)) if shown else None):
        yield


@contextmanager
def _later(say: Callable[[], None] | None) -> Iterator[None]:
    """Call `say` from another thread in a second, unless the block has ended by then."""
    if say is None:
        yield
        return

    def quietly() -> None:  # of a stream that takes nothing the next line, in its own thread, tells
        with suppress(OSError, ValueError):
            say()

    timer = threading.Timer(_SECONDS_TO_FIRST_LINE, quietly)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # what is printed next comes after its line


def _say(line: str) -> None:
    if sys.stdout is not None:
        sys.stdout.write(f"{line}\n")  # at once, so that lines of two threads do not mix
        sys.stdout.flush()


class _Rate(TextColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02d}"
