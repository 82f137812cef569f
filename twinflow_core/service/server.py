"""The service as a process: a socket, uvicorn, an orderly end."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from twinflow_core.errors import TwinflowError
from twinflow_core.runtime.generator import Generator
from twinflow_core.service.app import Limits, make_app

BACKLOG = 1024
# Above what may be admitted there is room for those who are told to come back, and for health and metrics.
CONNECTIONS_PER_ADMITTED = 8
GRACE_SECONDS = 30


def listen(host: str, port: int) -> socket.socket:
    """A socket that connections can be made to from now on; port 0 takes a free one.

    Raises:
        TwinflowError: the address is taken, or not this machine's.
    """
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise TwinflowError(
            f"The service cannot listen: {error.strerror}.",
            where=f"{host}:{port}",
            fix="Choose another --port or --host.",
        ) from None


def serve(
    generator: Generator, limits: Limits, listening: socket.socket, ready: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM; requests in hand are finished.

    Args:
        generator: what draws.
        limits: how much is taken on.
        listening: from `listen`; closed at the end.
        ready: told the service's address just before it starts.
    """
    host, port = listening.getsockname()[:2]
    ready(f"http://{host}:{port}")
    make_server(generator, limits).run(sockets=[listening])


def make_server(generator: Generator, limits: Limits) -> uvicorn.Server:
    """The HTTP server, not yet started."""
    config = uvicorn.Config(
        make_app(generator, limits),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_PER_ADMITTED * limits.admitted + BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return uvicorn.Server(config)
