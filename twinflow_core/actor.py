"""Who acts, as decisions and histories name them."""

from __future__ import annotations

import getpass
import os

ACTOR_VARIABLE = "TWINFLOW_ACTOR"


def actor(named: str = "") -> str:
    """Who acts: as told, else `TWINFLOW_ACTOR`, else the user's name on this machine."""
    if named or (named := os.environ.get(ACTOR_VARIABLE, "")):
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
