"""What `sdfgan view` refuses before it serves anything."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trimesh

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


@pytest.mark.skipif(importlib.util.find_spec("viser") is None, reason="viser is not installed")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_output_that_takes_nothing(tmp_path: Path) -> None:
    """Who cannot be told where the page is, is served none."""
    trimesh.creation.box((0.6, 1.0, 0.8)).export(tmp_path / "box.ply")
    command = [sys.executable, "-m", "sdfgan", "view", str(tmp_path / "box.ply"), "--port", "0"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "sdfgan view: error: output cannot be written: No space left on device\n"
