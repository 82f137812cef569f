"""Starts a function on many processes with torch's elastic launcher (what `torchrun` is), and says how they ended.

The processes stay in the group of the one that starts them, so that whoever ends that group ends them all:
`torchrun` itself gives every process a session of its own, which outlives a killed launcher.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from twinflow_core.errors import ExitCode, InfrastructureError, TwinflowError
from twinflow_core.finetune_params import LaunchParams

# The names under which torchrun itself reads them, and which the usual operators set.
ADDRESS, PORT, NODE = "PET_MASTER_ADDR", "PET_MASTER_PORT", "PET_NODE_RANK"
SECONDS_TO_END = 5
SECONDS_TO_MEET = 900
# A rank that only lost its peer must not be taken for the one that failed.
SECONDS_BEFORE_BLAME = 2.0


def launch(
    function: Callable[..., None], arguments: tuple[Any, ...], options: LaunchParams, name: str, folder: Path
) -> None:
    """Run a function on all processes of this node to its end, together with those of the other nodes.

    The first process prints here; what the others print lies in `folder` until all of them end well.

    Args:
        function: found by name in its module; it and its arguments are pickled.
        arguments: the same for all.
        options: how many processes and nodes. Of several nodes each runs this with its number in PET_NODE_RANK
            and the first one's address in PET_MASTER_ADDR and PET_MASTER_PORT.
        name: of the run; nodes with the same name belong together.
        folder: for what the processes print.

    Raises:
        TwinflowError: a process raised it.
        InfrastructureError: a process was killed or failed; none is left.
    """
    node, meeting = _meeting(options)
    printed = folder / f"ranks-{node}"
    shutil.rmtree(printed, ignore_errors=True)
    printed.mkdir(parents=True)
    silent = {local: Std.ALL for local in range(options.processes) if node or local}
    config = LaunchConfig(
        min_nodes=options.nodes,
        max_nodes=options.nodes,
        nproc_per_node=options.processes,
        run_id=name,
        max_restarts=0,
        shutdown_timeout=SECONDS_TO_END,
        logs_specs=DefaultLogsSpecs(log_dir=str(printed), redirects=silent),
        **meeting,
    )
    # Its own account of a failure is a page; `_explain` says it in a sentence.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        elastic_launch(config, run_rank)(function, arguments, str(printed))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise _explain(rank, failure, options.total, printed) from None
    except SignalException as error:
        signal.signal(error.sigval, signal.SIG_DFL)
        signal.raise_signal(error.sigval)
    shutil.rmtree(printed, ignore_errors=True)


def run_rank(function: Callable[..., None], arguments: tuple[Any, ...], reports: str) -> None:
    """The function as a rank runs it: an error that a user can put right goes to a file for the launcher."""
    try:
        function(*arguments)
    except TwinflowError as error:
        report = Path(reports) / f"{os.environ['RANK']}.json"
        report.write_text(json.dumps(error.as_dict()), encoding="utf-8")
        if error.code == ExitCode.INFRASTRUCTURE:
            time.sleep(SECONDS_BEFORE_BLAME)
        raise
    except Exception:
        time.sleep(SECONDS_BEFORE_BLAME)
        raise


def _meeting(options: LaunchParams) -> tuple[int, dict[str, Any]]:
    """The number of this node, and how its processes find the others.

    Raises:
        TwinflowError: of several nodes, this one was not told its number or the first one's address.
    """
    if options.nodes == 1:
        if sys.platform == "linux":
            # A machine need not be able to resolve its own name.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        return 0, {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "127.0.0.1"}
    missing = [name for name in (ADDRESS, PORT, NODE) if not os.environ.get(name)]
    if missing:
        raise TwinflowError(
            f"Training on {options.nodes} nodes, and this one was not told where they meet.",
            where=f"environment: {', '.join(missing)} not set",
            fix=f"Set {NODE} to 0 where the flow runs and to 1, 2, .. on the others, and {ADDRESS} and {PORT} to the "
            "first one's address and a free port of it.",
        )
    node = int(os.environ[NODE])
    endpoint = f"{os.environ[ADDRESS]}:{os.environ[PORT]}"
    configs = {"rank": node, "timeout": SECONDS_TO_MEET}
    return node, {"rdzv_backend": "static", "rdzv_endpoint": endpoint, "rdzv_configs": configs}


def _explain(rank: int, failure: ProcessFailure, total: int, printed: Path) -> TwinflowError:
    report = printed / f"{rank}.json"
    if report.exists():
        said = json.loads(report.read_text(encoding="utf-8"))
        return TwinflowError(said["what"], where=said["where"], fix=said["fix"], code=ExitCode(said["code"]))
    if failure.exitcode < 0:
        return InfrastructureError(
            f"Training stopped: process {rank} of {total} was killed ({failure.signal_name()}).",
            where=str(printed),
            fix="Run again: training resumes from its last checkpoint. If it happens again, look for want of memory.",
        )
    said = failure.message["message"] if isinstance(failure.message, dict) else failure.message
    return InfrastructureError(
        f"Training stopped: process {rank} of {total} failed: {' '.join(str(said).split())[:300]}",
        where=str(printed),
        fix="Read what it printed there; run again to resume from the last checkpoint.",
    )
