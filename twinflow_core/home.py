"""Where this checkout keeps what git does not: services, runs, training state, caches, locks."""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "TWINFLOW_HOME"


def state_home(root: Path) -> Path:
    """The state folder, made if it is missing.

    Args:
        root: the repository's root. A run's worktree is told the main checkout's folder by `TWINFLOW_HOME`.

    Returns:
        `$TWINFLOW_HOME` if it is set, else `<root>/.twinflow`.
    """
    home = Path(os.environ.get(HOME_VARIABLE) or root / ".twinflow").resolve()
    home.mkdir(parents=True, exist_ok=True)
    return home
