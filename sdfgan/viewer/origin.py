"""Who may talk to the viewer's server: its own page, and no other that is open in the same browser."""

from __future__ import annotations

import http
import ipaddress
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import websockets.asyncio.server


def is_own(headers: Mapping[str, str], any_name: bool) -> bool:
    """Whether a request comes from the page that this server sent, or from no page at all.

    A browser lets every page connect to every server, and says whose script it is (Origin); a name that somebody else
    has directed to this machine (DNS rebinding) is the page's own, so only `any_name` allows others than numbers and
    localhost. Headers that are no addresses, or are there twice, are nobody's.
    """
    try:
        host = headers.get("Host", "")
        origin = headers.get("Origin")
        from_page = None if origin is None else urllib.parse.urlsplit(origin).netloc
        name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    except (LookupError, ValueError):
        return False
    if from_page is not None and from_page.lower() != host.lower():
        return False
    return any_name or name == "localhost" or name.endswith(".localhost") or _is_number(name)


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@contextmanager
def own_pages_only(host: str) -> Iterator[None]:
    """Servers that viser starts meanwhile refuse (403) what `is_own` says is another page's; it has no way to ask so.

    A server that listens elsewhere than on this machine may be called by any name.
    """
    serve = websockets.asyncio.server.serve
    any_name = host not in ("127.0.0.1", "::1", "localhost")

    def checked(*arguments: Any, process_request: Any, **more: Any) -> Any:
        def process(connection: Any, request: Any) -> Any:
            if not is_own(request.headers, any_name):
                return connection.respond(http.HTTPStatus.FORBIDDEN, "this is another page's request\n")
            return process_request(connection, request)

        return serve(*arguments, process_request=process, **more)

    websockets.asyncio.server.serve = checked
    try:
        yield
    finally:
        websockets.asyncio.server.serve = serve
