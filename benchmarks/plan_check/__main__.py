"""The plan held against a GPU: peak memory, images a second and model FLOPS utilisation of two real shapes.

    python -m benchmarks.plan_check [--minutes 9.5] [--only sana-1.6b] [--tiny]

Every case (see `case`) is a process of its own, so that it starts on an empty GPU and one that runs out of memory ends
alone. What does not fit into the time is named, and can be run later: a case's figures are added to those that
benchmarks/results/plan_check_<gpu>.json has already. `--tiny` runs all but CUDA's counters on the CPU, at a size of
no meaning, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.plan_check.case import TINY, Case
from benchmarks.result_file import tell_result
from twinflow_core.errors import ExitCode, TwinflowError

RESULTS = Path(__file__).resolve().parents[1] / "results"
MODELS = tuple(TINY)
RANKS = (0, 64)
# What torch's compiler says after its error is no error.
RAISED = re.compile(r"[\w.]+(Error|Exception)\b")


def all_cases(only: str, tiny: bool) -> list[Case]:
    """The cases whose name holds `only`: eager ones first, which take seconds where compiling takes minutes."""
    cases = [
        Case(model, rank, compiled, tiny) for compiled, model, rank in product((False, True), MODELS, RANKS)
    ]
    return [case for case in cases if only in case.name]


def run_apart(case: Case, seconds: float) -> dict[str, Any]:
    """A case's figures, measured by another process; or, as `failed`, why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "case.json"
        command = [sys.executable, "-m", "benchmarks.plan_check.case", json.dumps(asdict(case)), str(out)]
        try:
            done = subprocess.run(
                command,
                timeout=max(seconds, 0.1),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"failed": "out of time"}
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raised = [line for line in lines if RAISED.match(line)]
            return {"failed": (raised or lines or [f"exit code {done.returncode}"])[-1][:300]}
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


def require_gpu() -> str:
    """The name of the GPU.

    Raises:
        TwinflowError: there is none.
    """
    if not torch.cuda.is_available():
        raise TwinflowError(
            "There is no CUDA GPU to hold the plan against.",
            where=f"torch {torch.__version__}",
            fix="Run this on a machine with one; `--tiny` tries the benchmark itself on the CPU.",
        )
    return torch.cuda.get_device_name()


def check(only: str, minutes: float, tiny: bool) -> dict[str, Any]:
    """Run the cases one after the other while there is time; their figures by name."""
    ends = time.monotonic() + 60 * minutes
    found = {}
    for case in all_cases(only, tiny):
        found[case.name] = run_apart(case, ends - time.monotonic())
        print(f"{case.name}: {json.dumps(found[case.name])}", file=sys.stderr, flush=True)
    return found


def main() -> int:
    """Measure, print, and write the figures of the cases that ran."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a part of the names of the cases to run")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    try:
        gpu = "cpu" if given.tiny else require_gpu()
    except TwinflowError as error:
        print(error, file=sys.stderr)
        return int(error.code)
    found = check(given.only, given.minutes, given.tiny)
    if given.tiny:
        print(json.dumps(found, indent=2))
        return int(ExitCode.DONE)
    out = RESULTS / f"plan_check_{re.sub('[^a-z0-9]+', '-', gpu.lower())}.json"
    before = json.loads(out.read_text(encoding="utf-8"))["cases"] if out.exists() else {}
    measured = {name: figures for name, figures in found.items() if "failed" not in figures}
    failed = {name: figures["failed"] for name, figures in found.items() if "failed" in figures}
    cases = before | measured
    tell_result(
        {"gpu": gpu, "cases": cases, "failed": {n: why for n, why in failed.items() if n not in cases}}, out
    )
    return int(ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main())
