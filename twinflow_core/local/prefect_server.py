"""The embedded Prefect server: API and UI on loopback, its SQLite database in the checkout's state folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twinflow_core.local.embedded import Recipe, Running, Say, ensure_running, ensure_stopped, read_record
from twinflow_core.local.loopback import HOST, read_url

NAME = "Prefect server"
# The first start after an installation compiles and migrates; on two busy cores that takes a minute.
START_SECONDS = 240.0
STOP_SECONDS = 20.0

PRIVACY_VARIABLES = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


def start_prefect(folder: Path, say: Say) -> str:
    """Bring the server up, unless it runs.

    Args:
        folder: the services' folder of the checkout.

    Returns:
        Its API's address, for PREFECT_API_URL.
    """
    running = ensure_running(prefect_recipe(folder), say)
    return prefect_api_url(running)


def stop_prefect(folder: Path, say: Say) -> bool:
    """Stop the server; its database stays. Returns whether it was running."""
    return ensure_stopped(prefect_recipe(folder), say)


def prefect_record(folder: Path) -> Running | None:
    """The record of the server's last start."""
    return read_record(_home(folder))


def prefect_api_url(running: Running) -> str:
    """The API's address of a started server."""
    return f"http://{HOST}:{running.ports[0]}/api"


def prefect_home(folder: Path) -> Path:
    """PREFECT_HOME of the server and its clients: the user's own profiles and keys stay out of it."""
    return _home(folder) / "home"


def prefect_recipe(folder: Path) -> Recipe:
    """How the server is run in a services' folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return Recipe(
        name=NAME,
        folder=_home(folder),
        ports=1,
        command=_command,
        is_healthy=lambda ports: read_url(f"http://{HOST}:{ports[0]}/api/health") is not None,
        start_seconds=START_SECONDS,
        stop_seconds=STOP_SECONDS,
        environment={
            **inherited,
            **PRIVACY_VARIABLES,
            "PREFECT_HOME": str(prefect_home(folder)),
            "PYTHONUNBUFFERED": "1",
        },
    )


def _home(folder: Path) -> Path:
    return folder / "prefect"


def _command(ports: tuple[int, ...]) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(ports[0])]
