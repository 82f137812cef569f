"""`make soak`: every soak one after the other; stopped and started again, it goes on where it was."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.soak.endings import REPEATS, soak_endings
from benchmarks.soak.kills import KILLS, soak_kills
from benchmarks.soak.ledger import Ledger
from benchmarks.soak.places import FILLINGS, soak_places
from benchmarks.soak.races import ROUNDS, soak_races
from benchmarks.soak.store_faults import STORMS, soak_store
from twinflow_core.local.seaweedfs import start_seaweedfs, stop_seaweedfs

BUCKET = "twinflow"
COUNTS = {"races": ROUNDS, "store": STORMS, "places": FILLINGS, "endings": REPEATS, "kills": KILLS}


def on_a_store(soak: Callable[..., Ledger], work: Path, count: int) -> Ledger:
    """Run a soak of the registry against a SeaweedFS of its own."""
    folder = work / "services"
    folder.mkdir(exist_ok=True)
    try:
        return soak(start_seaweedfs(folder, BUCKET, print), BUCKET, work, count)
    finally:
        stop_seaweedfs(folder, print)


def run(name: str, work: Path, count: int) -> Ledger:
    """Run one soak in so many rounds, kills or repeats."""
    if name == "races":
        return on_a_store(soak_races, work, count)
    if name == "store":
        return on_a_store(soak_store, work, count)
    return {"places": soak_places, "endings": soak_endings, "kills": soak_kills}[name](work, count)


def main() -> int:
    """Run what the command line names; 1 if a promise was broken."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    command.add_argument("soaks", nargs="*", metavar="soak", help=f"of {', '.join(COUNTS)}; all unless named")
    command.add_argument(
        "--count", type=int, help="rounds, kills a point or repeats, in place of the full count"
    )
    options = command.parse_args()
    unknown = set(options.soaks) - set(COUNTS)
    if unknown:
        command.error(f"no such soak: {', '.join(sorted(unknown))}")
    # A shell ignores Ctrl-C for what it starts in the background, and every run of the soak would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    failures = []
    for name in options.soaks or COUNTS:
        print(f"== {name}", flush=True)
        work = Path(tempfile.mkdtemp(prefix=f"twinflow-soak-{name}-"))
        try:
            ledger = run(name, work, options.count or COUNTS[name])
        finally:
            shutil.rmtree(work, ignore_errors=True)
        failures += [f"{name}: {key}" for key in ledger.failures]
    print("\n".join(["FAILED", *failures]) if failures else "Every promise held.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
