"""How a flow runs as `python -m flows.<name>`: errors as one message, a result as a file, an exit code."""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from twinflow_core.errors import TwinflowError, unexpected
from twinflow_core.full_disk import cannot_write, disk_is_full
from twinflow_core.home import state_home

INTERRUPTED = 130
PR_SET_PDEATHSIG = 1


Work = Callable[[argparse.Namespace], tuple[Any, int]]


def run_command(parser: argparse.ArgumentParser, work: Work) -> None:
    """Parse the command line, do the work, leave its document where `--result` says, and exit.

    Args:
        parser: the flow's own arguments; `--result` is added.
        work: gives a JSON document and the exit code. A `TwinflowError` becomes its message and its code,
            anything else a short message, the traceback in a file, and code 3.
    """
    parser.add_argument("--result", type=Path, help="file for the result as JSON")
    options = parser.parse_args()
    # As Ctrl-C: running children are ended and the run's tree is removed on the way out.
    signal.signal(signal.SIGTERM, _interrupt)
    _end_with_parent()
    try:
        document, code = work(options)
    except KeyboardInterrupt:
        print("Interrupted: the run's processes are ended, its files are removed.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if not isinstance(error, TwinflowError) and disk_is_full(error):
            error = cannot_write("A file of the run", error, str(Path.cwd()))
        log = state_home(Path.cwd()) / "flow-error.log"
        told = error if isinstance(error, TwinflowError) else unexpected(error, log)
        print(told, file=sys.stderr)
        document, code = {"error": told.as_dict()}, int(told.code)
    if options.result is not None:
        # The exit code must reach the caller even where nothing can be written.
        with suppress(OSError):
            options.result.write_text(json.dumps(document, default=str), encoding="utf-8")
    sys.exit(int(code))


def _end_with_parent() -> None:
    """On Linux, have this process told to end when the command that started it is killed outright."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
