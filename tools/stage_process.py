"""Run a command so that it costs no more than its limit, whatever it does: hang, crash, print, leave children behind.

Its output goes to a file rather than a pipe: nobody waits for whoever still holds the other end, and what was printed
is on disk when the caller dies too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_MARK = "SDFGAN_STAGE"  # environment variable by which the processes of a stage are found, in whatever session
_MAX_SEEN = 64 << 20  # bytes of output after which its middle is dropped, while the command goes on printing
_HEAD, _TAIL = 256 << 10, 704 << 10  # bytes that are kept of it
_POLL = 0.1  # seconds
_GRACE = 3.0  # seconds from SIGTERM to SIGKILL
_REAP = 5.0  # seconds that a killed process may take to go; one that is stuck in a driver never does


class Ended(NamedTuple):
    """What became of a command."""

    outcome: str  # "passed", "failed (3)", "killed by SIGSEGV", "out of time", "... not found"
    seconds: float


def run_limited(
    command: list[str],
    limit: float,
    output: Path,
    environment: dict[str, str],
    folder: Path,
    heartbeat: Callable[[float], None] = lambda seconds: None,
) -> Ended:
    """Run `command` in `folder` for at most `limit` seconds, stdout and stderr appended to `output`.

    After its limit it gets SIGTERM, and some seconds later SIGKILL, as does all that it has started; that also when it
    ends by itself, or the caller is interrupted. `heartbeat` is called a few times a second with the seconds so far.
    """
    mark, begin = uuid.uuid4().hex, time.monotonic()
    with output.open("ab") as file:  # appending: writers go on at the end, where `shorten` puts it
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**environment, _MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            return Ended(f"{command[0]} not found" if missing else f"not started: {error}", 0.0)
    in_time = False
    try:
        in_time = _wait(process, begin + limit, lambda: _watch(process, output, heartbeat, begin))
        if not in_time:
            process.terminate()  # the leader alone: it may still have something to say about its children
            _wait(process, time.monotonic() + _GRACE)
    finally:
        _kill(process, mark)
        shorten(output, _HEAD + _TAIL)
    status = process.poll()
    if not in_time:
        outcome = "out of time" if status is not None else "out of time, and cannot be killed"
    elif status is not None and status < 0:
        outcome = f"killed by {signal.Signals(-status).name}"
    else:
        outcome = f"failed ({status})" if status else "passed"
    return Ended(outcome, time.monotonic() - begin)


def shorten(output: Path, most: int) -> None:
    """Keep the beginning and the end of a file of more than `most` bytes, which nobody writes to meanwhile."""
    size = output.stat().st_size
    if size <= most:
        return
    with output.open("rb") as file:
        file.seek(size - _TAIL)
        tail = file.read(_TAIL)
    os.truncate(output, _HEAD)
    with output.open("ab") as file:
        file.write(b"\n... %d bytes left out ...\n" % (size - _HEAD - _TAIL) + tail)


def last_lines(output: Path, count: int, width: int = 240) -> list[str]:
    """The last lines of a text file, long ones cut."""
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - (64 << 10)))
        text = file.read(64 << 10).decode(errors="replace").replace("\r", "\n")
    return [line[:width] for line in text.splitlines() if line.strip()][-count:]


def _wait(process: subprocess.Popen[bytes], until: float, watch: Callable[[], None] = lambda: None) -> bool:
    """Whether the process has ended by then."""
    while process.poll() is None:
        if time.monotonic() >= until:
            return False
        watch()
        time.sleep(_POLL)
    return True


def _watch(process: subprocess.Popen[bytes], output: Path, heartbeat: Callable[[float], None], begin: float) -> None:
    if output.stat().st_size > _MAX_SEEN:
        with _paused(process) as still:
            if still:
                shorten(output, _MAX_SEEN)
    heartbeat(time.monotonic() - begin)


@contextmanager
def _paused(process: subprocess.Popen[bytes]) -> Iterator[bool]:
    """Stops a process and its group, lest what it writes meanwhile is lost; whether it stands still (or has ended)."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGSTOP)
    until, seen = time.monotonic() + _GRACE, None
    while seen is None and time.monotonic() < until:  # one that is stuck in a driver does not stop
        seen = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT)
        time.sleep(_POLL / 10)  # also for the others of the group, to end the write that they are in
    try:
        yield seen is not None
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGCONT)


def _kill(process: subprocess.Popen[bytes], mark: str) -> None:
    """SIGKILL for the process, its group, and all others that have its mark; waits for them, but not for ever."""
    until = time.monotonic() + _REAP
    while time.monotonic() < until:
        with suppress(ProcessLookupError, PermissionError):  # nobody may be left in it
            os.killpg(process.pid, signal.SIGKILL)
        others = _marked(mark)
        for pid in others:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if process.poll() is not None and not others:
            return
        time.sleep(_POLL / 4)


def _marked(mark: str) -> list[int]:
    """Living processes whose environment has the mark (Linux; elsewhere none are found)."""
    wanted, found = f"{_MARK}={mark}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile, or another user's
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found
