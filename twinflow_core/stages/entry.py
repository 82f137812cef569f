"""How every stage starts: params in, errors said in one message, the right exit code out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from twinflow_core.errors import TwinflowError
from twinflow_core.params import PARAMS_FILE, Params, load_params


def run_stage(stage: Callable[[Params, Path], None]) -> None:
    """Run one stage in the current folder and exit with its code.

    Args:
        stage: takes the validated params and the root folder (where dvc.yaml lies).
    """
    root = Path.cwd()
    try:
        stage(load_params(root / PARAMS_FILE), root)
    except TwinflowError as error:
        print(error, file=sys.stderr)
        sys.exit(int(error.code))
