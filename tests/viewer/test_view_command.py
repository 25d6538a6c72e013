"""What `sdfgan view` refuses before it serves anything."""

from __future__ import annotations

import importlib.util
import socket

import pytest

from command_line import error
from sdfgan.cli.view import free_port
from sdfgan.errors import UserError


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = error(capsys, "view", "runs/none")
    assert said == 'sdfgan view: error: the viewer needs viser: pip install "sdfgan[viewer]"'


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^--host 127\.0\.0\.1 --port {port}: Address already in use$"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", port) == port
    assert free_port("127.0.0.1", 0) > 0
    first = free_port("127.0.0.1", None)
    with socket.create_server(("127.0.0.1", first)):
        assert free_port("127.0.0.1", None) > first


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])  # an address for documentation, which nobody has
def test_addresses_that_are_not_ours(host: str) -> None:
    with pytest.raises(UserError, match=f"^--host {host} --port 8080: "):
        free_port(host, None)


def test_what_is_no_name_of_a_host() -> None:
    with pytest.raises(UserError, match=rf"^--host {'a' * 70}: not the name of a host$"):
        free_port("a" * 70, None)
