"""Promotions under load: does any request fail, or any image belong to another version than it names?

    python -m benchmarks.hot_swap [--seconds 60] [--package FOLDER]

Starts an S3 server and `twinflow serve-model` as processes of their own, finds the number of clients at which the
service draws the most images a second without refusing any, then keeps that load up while the channel is promoted
three times and rolled back once. Every image is compared with what its version draws. Then twice as many clients as
the service admits ask at once: 429 with Retry-After is the right answer, and memory must not grow.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.machine import machine_fingerprint
from benchmarks.result_file import tell_result
from tests.served_model import changed_package, promote
from tests.service_load import Answers, Expected, Load, expected_images, percentile, wait_until_served
from tests.service_process import running_service
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.export.package import build_package
from twinflow_core.local.seaweedfs import start_seaweedfs, stop_seaweedfs
from twinflow_core.params import PARAMS_FILE, load_params
from twinflow_core.registry.channel import Entry
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore
from twinflow_core.runtime.loaded_package import LoadedPackage

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks/results/hot_swap.json"
BUCKET = "twinflow"
FACTORS = (1.0, 1.1, 1.2, 1.3)
CLIENTS = (1, 2, 4, 8, 16, 32)
ADMITTED = 64
PROBE_SECONDS = 3.0
REFRESH_SECONDS = "1"
LONGEST_SWAP_SECONDS = 120.0


@dataclass(frozen=True)
class Bench:
    """What is measured: a service, the versions that it may serve, and what each of them draws."""

    url: str
    pid: int
    registry: Registry
    versions: Sequence[str]
    expected: Expected

    def memory_mb(self) -> float:
        """Resident memory of the service."""
        return round(psutil.Process(self.pid).memory_info().rss / 2**20, 1)


def best_load(bench: Bench) -> tuple[int, dict[int, float]]:
    """The number of clients with the most images a second, and the rate of each number tried."""
    rates: dict[int, float] = {}
    for clients in CLIENTS:
        load = Load(bench.url, clients)
        time.sleep(PROBE_SECONDS)
        answers, seconds = load.stop()
        if set(answers.statuses) != {200}:
            break
        rates[clients] = round(answers.statuses[200] / seconds, 1)
    return max(rates, key=lambda clients: rates[clients]), rates


def swap_under_load(bench: Bench, clients: int, seconds: float) -> dict[str, Any]:
    """Three promotions and one rollback, evenly spread over the time."""
    moves: list[Callable[[], Entry]] = [
        *(
            lambda version=version: promote(bench.registry, "production", version)
            for version in bench.versions[1:]
        ),
        lambda: bench.registry.rollback("production", "benchmark", "under load"),
    ]
    waits = []
    load = Load(bench.url, clients)
    for move in moves:
        time.sleep(seconds / (len(moves) + 1))
        waits.append(wait_until_served(bench.url, move().generation, LONGEST_SWAP_SECONDS))
    time.sleep(seconds / (len(moves) + 1))
    answers, took = load.stop()
    return {
        "seconds": round(took, 1),
        "clients": clients,
        "promotions": len(moves) - 1,
        "rollbacks": 1,
        "seconds_until_served": waits,
        "images_per_second": round(answers.statuses[200] / took, 1),
        "p50_ms": percentile(answers.seconds, 50),
        "p95_ms": percentile(answers.seconds, 95),
        "p99_ms": percentile(answers.seconds, 99),
        "slowest_ms": percentile(answers.seconds, 100),
        **judged(answers, bench.expected),
        "by_version": {version[:12]: count for version, count in answers.by_version().items()},
    }


def overload(bench: Bench, seconds: float) -> dict[str, Any]:
    """Twice as many clients as the service admits."""
    before = bench.memory_mb()
    load = Load(bench.url, 2 * ADMITTED)
    time.sleep(seconds)
    answers, took = load.stop()
    return {
        "seconds": round(took, 1),
        "clients": 2 * ADMITTED,
        "admitted": ADMITTED,
        **judged(answers, bench.expected),
        "told_to_come_back": answers.statuses[429],
        "without_retry_after": answers.without_retry_after,
        "memory_mb_before": before,
        "memory_mb_after": bench.memory_mb(),
    }


def judged(answers: Answers, expected: Expected) -> dict[str, Any]:
    """What came back, by kind."""
    return {
        "answers": sum(answers.statuses.values()),
        "images": answers.statuses[200],
        "failed": len(answers.broken)
        + sum(answers.statuses[code] for code in answers.statuses if code >= 500),
        "mixed": answers.wrong(expected),
        "without_version": answers.unnamed,
    }


@contextmanager
def bench_of(package: Path, folder: Path, connection: S3Connection, threads: int) -> Iterator[Bench]:
    """Versions of the package, the first promoted, and a service that follows."""
    registry = Registry(ObjectStore(make_s3_client(connection), BUCKET), f"bench-{uuid.uuid4().hex[:8]}")
    folders = [changed_package(package, folder / f"x{factor}", factor) for factor in FACTORS]
    versions = [registry.publish(each, {"run": each.name}, {}) for each in folders]
    promote(registry, "production", versions[0])
    packages = {
        version: LoadedPackage.from_folder(each, "cpu", threads=threads)
        for version, each in zip(versions, folders, strict=True)
    }
    expected = expected_images(packages)
    options = ["--model", registry.model, "--bucket", BUCKET, "--channel", "production", "--provider", "cpu"]
    options += ["--queue", str(ADMITTED), "--threads", str(threads), "--refresh-seconds", REFRESH_SECONDS]
    with running_service(folder, connection.environment(), *options) as (url, pid):
        yield Bench(url, pid, registry, versions, expected)


def measure(package: Path | None, seconds: float, threads: int) -> dict[str, Any]:
    """The whole document that is written."""
    machine = machine_fingerprint()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        package = package or _exported(folder / "package")
        services = folder / "services"
        services.mkdir()
        connection = start_seaweedfs(services, BUCKET, print)
        try:
            with bench_of(package, folder, connection, threads) as bench:
                clients, rates = best_load(bench)
                swapped = swap_under_load(bench, clients, seconds)
                flooded = overload(bench, seconds / 6)
        finally:
            stop_seaweedfs(services, print)
    return {
        "images_per_second_by_clients": rates,
        "hot_swap": swapped,
        "overload": flooded,
        "threads": threads,
        "machine": machine,
    }


def _exported(folder: Path) -> Path:
    """The bundled base as a package: no figure depends on what is drawn."""
    folder.mkdir()
    build_package(
        load_backbone(ROOT / "assets/base"), folder, [1], load_params(ROOT / PARAMS_FILE).export.opset
    )
    return folder


def main() -> None:
    """Measure, print, write benchmarks/results/hot_swap.json; exit 1 if an answer failed or was mixed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, help="an exported package; else the bundled base is exported")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    result = measure(given.package, given.seconds, given.threads)
    tell_result(result, given.out)
    wrong = [
        result[part][kind]
        for part in ("hot_swap", "overload")
        for kind in ("failed", "mixed", "without_version")
    ]
    raise SystemExit(int(any(wrong)))


if __name__ == "__main__":
    main()
