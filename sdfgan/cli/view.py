"""`sdfgan view`: a page in the browser for any result."""

from __future__ import annotations

import errno
import socket
import sys
import time
from contextlib import closing

from sdfgan.cli.arguments import run_folder
from sdfgan.cli.flags import ViewConfig
from sdfgan.errors import UserError, require_module

_NAP = 0.2  # seconds between looks at whether it is to end
_PORT, _TRIES = 8080, 50  # where no port is given: the first that is free of so many


def run(config: ViewConfig) -> None:
    """Serve the page until Ctrl-C or SIGTERM, and then raise SystemExit. Raises UserError."""
    require_module("viser", "the viewer", "viewer")
    port = free_port(config.host, config.port)
    from sdfgan.training.device import resolve_device
    from sdfgan.training.interrupt import StopSignals
    from sdfgan.viewer.page import Viewer

    viewer = Viewer(
        config.path,
        run_folder(config.path),
        resolve_device(config.device),
        config.weights.replace("-", "_"),  # type: ignore[arg-type]
        host=config.host,
        port=port,
        resolution=config.resolution,
        cells=config.mesh_resolution,
    )
    for note in viewer.scene.notes:
        print(note, file=sys.stderr)
    with closing(viewer), StopSignals() as signals:
        host = f"[{config.host}]" if ":" in config.host else config.host
        print(f"{viewer.scene.title}: http://{host}:{viewer.server.get_port()} (Ctrl-C ends)", flush=True)
        while signals.received is None:
            time.sleep(_NAP)
    print("stopped")
    raise SystemExit(128 + signals.received)


def free_port(host: str, port: int | None) -> int:
    """`port`, or the first free one from 8080 on. Raises UserError where none can be had, or not at that address."""
    for wanted in range(_PORT, _PORT + _TRIES) if port is None else (port,):
        try:
            family = socket.getaddrinfo(host, wanted)[0][0]
            with socket.create_server((host, wanted), family=family) as server:
                return int(server.getsockname()[1])
        except UnicodeError as error:  # a label of more than 63 characters, for example
            raise UserError(f"--host {host}: not the name of a host") from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port is not None:
                reason = str(error.strerror).partition(" (")[0]  # Python adds the address
                raise UserError(f"--host {host} --port {wanted}: {reason}") from error
    raise UserError(f"--port: none of {_PORT} to {_PORT + _TRIES - 1} is free")
