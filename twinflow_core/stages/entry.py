"""How every stage starts: params in, errors said in one message, the right exit code out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from twinflow_core.errors import TwinflowError
from twinflow_core.full_disk import cannot_write, disk_is_full
from twinflow_core.params import PARAMS_FILE, Params, load_params

# A parent cannot see this process's exit code: DVC stands between them and has codes of its own.
ERROR_FILE_VARIABLE = "TWINFLOW_ERROR_FILE"


def run_stage(stage: Callable[[Params, Path], None]) -> None:
    """Run one stage in the current folder and exit with its code.

    An error is also written as JSON to the file that `TWINFLOW_ERROR_FILE` names, if it is set.

    Args:
        stage: takes the validated params and the root folder (where dvc.yaml lies).
    """
    root = Path.cwd()
    try:
        stage(load_params(root / PARAMS_FILE), root)
    except TwinflowError as error:
        _end(error)
    except Exception as error:
        if not disk_is_full(error):
            raise
        _end(cannot_write(f"The output of `{stage.__name__}`", error, str(root)))


def _end(error: TwinflowError) -> NoReturn:
    print(error, file=sys.stderr)
    if path := os.environ.get(ERROR_FILE_VARIABLE):
        # The disk may be full: then the last lines on standard error must do.
        with suppress(OSError):
            Path(path).write_text(json.dumps(error.as_dict()), encoding="utf-8")
    sys.exit(int(error.code))
