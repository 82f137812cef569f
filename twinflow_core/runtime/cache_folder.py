"""Where a serving machine keeps what it can get again: versions, and engines built for its GPU."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """`$XDG_CACHE_HOME/twinflow`, else `~/.cache/twinflow`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinflow"
