"""Whom the viewer's server answers."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

viser = pytest.importorskip("viser")
sync = pytest.importorskip("websockets.sync.client")

from websockets.exceptions import InvalidStatus  # noqa: E402

from sdfgan.cli.view import free_port  # noqa: E402
from sdfgan.viewer.origin import is_own, own_pages_only  # noqa: E402


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with own_pages_only("127.0.0.1"):
        server = viser.ViserServer("127.0.0.1", free_port("127.0.0.1", 0), verbose=False)
    yield server.get_port()
    server.stop()


def get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_page_itself(port: int) -> None:
    for name in ("127.0.0.1", "localhost"):
        status, content = get(port, "/", Host=f"{name}:{port}", Origin=f"http://{name}:{port}")
        assert status == 200 and b"<html" in content.lower()
    assert get(port, "/", Host="localhost:9000")[0] == 200, "through a tunnel from another port"


@pytest.mark.parametrize(
    "path",
    ["/../../../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/..\\..\\etc"],
)
def test_files_elsewhere_are_not_served(port: int, path: str) -> None:
    status, content = get(port, path)
    assert status == 404 and b"root:" not in content


def test_other_pages_are_refused(port: int) -> None:
    assert get(port, "/", Origin="https://evil.example")[0] == 403
    assert get(port, "/", Origin="http://[evil")[0] == 403
    assert get(port, "/", Host=f"evil.example:{port}", Origin=f"http://evil.example:{port}")[0] == 403
    with pytest.raises(InvalidStatus) as refused:
        sync.connect(f"ws://127.0.0.1:{port}", origin="https://evil.example", subprotocols=["viser-v1"])
    assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as refused:
        sync.connect(f"ws://127.0.0.1:{port}", origin="null")
    assert refused.value.response.status_code == 403
    subprotocols = [f"viser-v{viser.__version__}"]
    with sync.connect(f"ws://127.0.0.1:{port}", origin=f"http://127.0.0.1:{port}", subprotocols=subprotocols) as socket:
        assert socket.recv(timeout=10)


@pytest.mark.parametrize(
    ("host", "origin", "any_name", "own"),
    [
        ("127.0.0.1:8080", None, False, True),
        ("[::1]:8080", "http://[::1]:8080", False, True),
        ("LOCALHOST:8080", "http://localhost:8080", False, True),
        ("localhost:8080", "http://localhost:8081", False, False),
        ("localhost:8080", "null", False, False),
        ("me.example", None, False, False),
        ("me.example", "https://me.example", True, True),
        ("me.example", "https://you.example", True, False),
        ("", None, False, False),
        ("[::1", None, True, False),
        ("localhost", "http://[localhost", False, False),
    ],
)
def test_whose_a_request_is(host: str, origin: str | None, any_name: bool, own: bool) -> None:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    assert is_own(headers, any_name) == own
