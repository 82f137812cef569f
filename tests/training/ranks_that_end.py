"""What the processes of tests/training/test_launch.py run, and a launcher of them that can be killed."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import LaunchParams
from twinflow_core.training.launch import launch


def one_is_told_no(folder: Path) -> None:
    (folder / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
    if os.environ["RANK"] == "1":
        raise TwinflowError("Rank one says no.", where="here", fix="Say please.")
    time.sleep(600)


def one_fails(folder: Path) -> None:
    if os.environ["RANK"] == "1":
        print("what rank one printed")
        raise ValueError("of a fault in the code")
    time.sleep(600)


def sleep(folder: Path) -> None:
    (folder / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
    time.sleep(600)


if __name__ == "__main__":
    launch(sleep, (Path(sys.argv[1]),), LaunchParams(processes=2), "asleep", Path(sys.argv[1]) / "state")
