"""Ports and pings on this machine's loopback."""

from __future__ import annotations

import random
import socket
import urllib.error
import urllib.request

HOST = "127.0.0.1"
# SeaweedFS opens port + 10000 beside each port. Both stay below the range from which systems hand out ports
# of outgoing connections (32768 and up), so that a chosen port is not taken between choice and start.
LOWEST_PORT = 10240
HIGHEST_PORT = 22000
GRPC_OFFSET = 10000


def free_ports(count: int) -> tuple[int, ...]:
    """Random ports that nobody listens on, with their neighbours at +10000 free too."""
    chosen: list[int] = []
    for port in random.sample(range(LOWEST_PORT, HIGHEST_PORT), HIGHEST_PORT - LOWEST_PORT):
        if is_free(port):
            chosen.append(port)
        if len(chosen) == count:
            break
    return tuple(chosen)


def is_free(port: int) -> bool:
    """Whether a service can listen on this port and on port + 10000."""
    return all(_can_bind(candidate) for candidate in (port, port + GRPC_OFFSET))


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT after a restart is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def read_url(url: str, seconds: float = 3.0, through_proxy: bool = False) -> bytes | None:
    """The body of a 200 answer to GET, or None for any other answer or none in time.

    Args:
        through_proxy: ask the proxy of the environment, for an address beyond this machine.
    """
    handlers = [] if through_proxy else [urllib.request.ProxyHandler({})]
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=seconds) as answer:
            body: bytes = answer.read()
            return body if answer.status == 200 else None
    except (urllib.error.URLError, OSError, ValueError):
        return None
