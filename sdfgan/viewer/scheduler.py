"""When images are drawn: coarse while something moves, full when it is still, for all clients in turn.

One thread draws. A client that asks again before its image was begun is drawn once, as it is by then; a full image
that something overtook is given up.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

HEIGHTS = (48, 64, 96, 128, 192, 256)  # of coarse images, in pixels
_FIRST = HEIGHTS.index(128)
_AIM = 1 / 15  # seconds of a coarse image, at most
_IDLE = _AIM / 4  # below which the next one may be finer
_SETTLED = 0.2  # seconds without a change, after which something is still


class Stale(Exception):
    """What was being drawn is not wanted any more."""


class Client(Protocol):
    """Whom images are drawn for. All is called in the scheduler's thread."""

    def draw(self, height: int | None, check: Callable[[], None]) -> Any:
        """The image as it is wanted now: coarse with a height, else full.

        `check`, called from time to time, raises Stale.
        """

    def show(self, image: Any) -> None:
        """Take an image that was drawn."""

    def fail(self, error: Exception) -> None:
        """Take what `draw`, `show` or a task raised."""


@dataclass
class _Wish:
    """What a client is still to get."""

    version: int = 0  # of what it asked for
    coarse: int = 0  # version that was drawn so
    full: int = 0
    asked: float = 0.0  # when
    level: int = _FIRST  # of its coarse images' heights
    tasks: deque[Callable[[], None]] = field(default_factory=deque)


class Scheduler:
    """Draws for clients until it is closed."""

    def __init__(self, settled: float = _SETTLED, clock: Callable[[], float] = time.monotonic) -> None:
        self._settled, self._clock = settled, clock
        self._wishes: dict[Client, _Wish] = {}  # whose turn is next stands first
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name="viewer", daemon=True)
        self._thread.start()

    def ask(self, client: Client) -> None:
        """A client has changed: it gets a coarse image, and a full one once it is still."""
        with self._changed:
            wish = self._wishes.setdefault(client, _Wish())
            wish.version += 1
            wish.asked = self._clock()
            self._changed.notify()

    def do(self, client: Client, task: Callable[[], None]) -> None:
        """Do something once, when no image of the client's is due."""
        with self._changed:
            self._wishes.setdefault(client, _Wish()).tasks.append(task)
            self._changed.notify()

    def drop(self, client: Client) -> None:
        """A client has left."""
        with self._changed:
            self._wishes.pop(client, None)

    def close(self, patience: float = 1.0) -> None:
        """Stop drawing; waits so many seconds for what is being drawn."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(patience)

    def _work(self) -> None:
        while (job := self._wait()) is not None:
            client, wish, work = job
            try:
                work()
            except Stale:
                pass
            except Exception as error:
                if self._wishes.get(client) is wish:
                    client.fail(error)
            with self._changed:
                if self._wishes.get(client) is wish:  # the others come first now
                    self._wishes[client] = self._wishes.pop(client)

    def _wait(self) -> tuple[Client, _Wish, Callable[[], None]] | None:
        """The next thing to do; None at the end."""
        with self._changed:
            while not self._closed:
                now, pause = self._clock(), None
                for client, wish in self._wishes.items():
                    still = wish.asked + self._settled - now
                    work = self._due(client, wish, still)
                    if work is not None:
                        return client, wish, work
                    if wish.full < wish.version:
                        pause = still if pause is None else min(pause, still)
                self._changed.wait(pause)
            return None

    def _due(self, client: Client, wish: _Wish, still: float) -> Callable[[], None] | None:
        if wish.coarse < wish.version:
            wish.coarse = wish.version
            return lambda: self._draw_coarse(client, wish)
        if wish.full < wish.version and still <= 0:
            wish.full = version = wish.version
            return lambda: self._draw_full(client, wish, version)
        return wish.tasks.popleft() if wish.tasks else None

    def _draw_coarse(self, client: Client, wish: _Wish) -> None:
        begin = time.perf_counter()
        image = client.draw(HEIGHTS[wish.level], lambda: self._check(client, wish, None))
        seconds = time.perf_counter() - begin
        self._check(client, wish, None)
        client.show(image)
        step = -1 if seconds > _AIM else 1 if seconds < _IDLE else 0
        wish.level = min(max(wish.level + step, 0), len(HEIGHTS) - 1)

    def _draw_full(self, client: Client, wish: _Wish, version: int) -> None:
        image = client.draw(None, lambda: self._check(client, wish, version))
        self._check(client, wish, version)
        client.show(image)

    def _check(self, client: Client, wish: _Wish, version: int | None) -> None:
        """Raises Stale where the client has left, or has asked for something newer than `version`."""
        if self._closed or self._wishes.get(client) is not wish or version not in (None, wish.version):
            raise Stale
