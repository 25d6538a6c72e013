"""Coarse while it moves, full when it is still, nothing that nobody wants any more; clients in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sdfgan.viewer.scheduler import HEIGHTS, Scheduler

PATIENCE = 10.0  # seconds in which a test's image must come
Log = list[tuple[str, str]]


class Client:
    """Writes what is drawn for it; `hold` an image and it takes until `release`."""

    def __init__(self, log: Log, name: str = "a", seconds: float = 0.0) -> None:
        self.log, self.name, self.seconds = log, name, seconds
        self.changed, self.heights = threading.Condition(), list[int]()
        self.gate, self.began = threading.Event(), threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def draw(self, height: int | None, check: Callable[[], None]) -> str:
        kind = "full" if height is None else "coarse"
        self.log.append((self.name, f"begin {kind}"))
        self.heights += [] if height is None else [height]
        self.began.set()
        assert self.gate.wait(PATIENCE)
        time.sleep(self.seconds)
        check()
        if self.error is not None:
            raise self.error
        return kind

    def show(self, image: str) -> None:
        self.write(image)

    def fail(self, error: Exception) -> None:
        self.write(str(error))

    def write(self, what: str) -> None:
        with self.changed:
            self.log.append((self.name, what))
            self.changed.notify_all()

    def wait(self, what: str, count: int = 1) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.log.count((self.name, what)) >= count, PATIENCE), self.log

    def hold(self) -> None:
        self.gate.clear()
        self.began.clear()

    def wait_begun(self) -> None:
        assert self.began.wait(PATIENCE)


@pytest.fixture
def log() -> Log:
    return []


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(settled=0.05)
    yield made
    made.close()


def shown(log: Log) -> list[str]:
    return [what for _, what in log if not what.startswith("begin")]


def test_coarse_then_full_once(scheduler: Scheduler, log: Log) -> None:
    client = Client(log)
    scheduler.ask(client)
    client.wait("full")
    time.sleep(0.2)
    assert shown(log) == ["coarse", "full"]
    assert client.heights == [128]


def test_no_full_image_while_it_moves(log: Log) -> None:
    now = [0.0]
    scheduler, client = Scheduler(settled=1.0, clock=lambda: now[0]), Client(log)
    for number in range(5):
        scheduler.ask(client)
        client.wait("coarse", number + 1)
        now[0] += 0.9
    assert shown(log) == ["coarse"] * 5
    now[0] += 0.2
    scheduler.do(client, lambda: None)  # wakes it: the clock is not its own
    client.wait("full")
    scheduler.close()


def test_requests_that_came_meanwhile_are_one(scheduler: Scheduler, log: Log) -> None:
    client = Client(log)
    client.hold()
    scheduler.ask(client)
    client.wait_begun()
    for _ in range(100):
        scheduler.ask(client)
    client.gate.set()
    client.wait("full")
    assert shown(log) == ["coarse", "coarse", "full"]


def test_a_full_image_that_is_overtaken_is_given_up(scheduler: Scheduler, log: Log) -> None:
    client = Client(log)
    scheduler.ask(client)
    client.wait("coarse")
    client.hold()
    client.wait_begun()  # the full one
    scheduler.ask(client)
    client.gate.set()
    client.wait("full")
    assert [what for _, what in log] == [
        "begin coarse", "coarse", "begin full", "begin coarse", "coarse", "begin full", "full",
    ]  # fmt: skip


def test_clients_take_turns(scheduler: Scheduler, log: Log) -> None:
    one, other = Client(log, "one"), Client(log, "other")
    one.hold()
    scheduler.ask(one)
    one.wait_begun()
    for _ in range(3):  # it moves on, and another comes
        scheduler.ask(one)
    scheduler.ask(other)
    one.gate.set()
    one.wait("full")
    other.wait("full")
    assert [entry for entry in log if entry[1] == "coarse"] == [
        ("one", "coarse"),
        ("other", "coarse"),
        ("one", "coarse"),
    ]


def test_a_client_that_leaves_is_not_drawn_for(scheduler: Scheduler, log: Log) -> None:
    gone, stays = Client(log, "gone"), Client(log, "stays")
    gone.hold()
    scheduler.ask(gone)
    gone.wait_begun()
    scheduler.ask(gone)
    scheduler.drop(gone)
    scheduler.drop(gone)
    gone.gate.set()
    scheduler.ask(stays)
    stays.wait("full")
    assert [entry for entry in log if entry[0] == "gone"] == [("gone", "begin coarse")]


def test_errors_are_said_and_it_goes_on(scheduler: Scheduler, log: Log) -> None:
    client = Client(log)
    client.error = ValueError("too dark")
    scheduler.ask(client)
    client.wait("too dark", 2)  # coarse and full
    scheduler.do(client, lambda: 1 / 0)
    client.wait("division by zero")
    client.error = None
    scheduler.ask(client)
    client.wait("full")


def test_tasks_are_done_once_when_nothing_is_to_be_drawn(scheduler: Scheduler, log: Log) -> None:
    client = Client(log)
    client.hold()
    scheduler.ask(client)
    client.wait_begun()
    scheduler.ask(client)
    scheduler.do(client, lambda: client.write("mesh"))
    client.gate.set()
    client.wait("full")
    assert shown(log) == ["coarse", "coarse", "mesh", "full"]


def test_coarse_images_are_as_fine_as_is_quick(scheduler: Scheduler, log: Log) -> None:
    slow, quick = Client(log, "slow", seconds=0.1), Client(log, "quick")
    for client, end in ((slow, HEIGHTS[0]), (quick, HEIGHTS[-1])):
        for number in range(len(HEIGHTS) + 1):
            scheduler.ask(client)
            client.wait("coarse", number + 1)
        steps = sorted(set(client.heights))
        assert client.heights[0] == 128 and client.heights[-1] == end and len(steps) > 2


def test_it_ends_while_it_draws(log: Log) -> None:
    scheduler, client = Scheduler(), Client(log)
    client.hold()
    scheduler.ask(client)
    client.wait_begun()
    scheduler.close(patience=0.01)
    client.gate.set()
    scheduler.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "viewer" and thread.is_alive()]
    assert shown(log) == []
