"""What a source in a bucket takes as it grows: peak memory and objects a second, against a real S3 server.

`python -m benchmarks.bucket_scale [--objects N ...]` fills prefixes of an embedded server, lists and fetches each in
a process of its own as the stage `raw` does, downloads some objects by several numbers of threads, and writes
benchmarks/results/bucket_scale.json. Half of the objects are images of 3 kB, half are captions; none is opened.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.machine import machine_fingerprint
from benchmarks.result_file import tell_result
from twinflow_core.data.object_downloads import download_all
from twinflow_core.data.s3_source import fetch_source, listing, place_of
from twinflow_core.local.seaweedfs import start_seaweedfs, stop_seaweedfs
from twinflow_core.peak_memory import peak_bytes
from twinflow_core.registry.s3 import S3Connection, connection_from_environment, make_s3_client

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/bucket_scale.json"
BUCKET = "source"
IMAGE_BYTES, CAPTION_BYTES = 3000, 20
UPLOADS = 4
THREADS = (1, 4, 8, 16, 32)
# An answer of the embedded server takes a millisecond or two; of one in another building, some 20 more.
MORE_SECONDS_AN_ANSWER = (0.0, 0.02)
OBJECTS_A_NUMBER_OF_THREADS = 2000


def fill(connection: S3Connection, objects: int) -> str:
    """Put so many objects under a prefix, whose address is returned."""
    client = make_s3_client(connection)

    def put(number: int) -> None:
        ending, size = (("png", IMAGE_BYTES), ("txt", CAPTION_BYTES))[number % 2]
        client.put_object(Bucket=BUCKET, Key=f"{objects}/{number // 2:08d}.{ending}", Body=bytes(size))

    with ThreadPoolExecutor(UPLOADS) as pool:
        remaining = iter(range(objects))
        while some := list(islice(remaining, 1000)):
            list(pool.map(put, some))
    return f"s3://{BUCKET}/{objects}"


def fetch_here(source: str) -> dict[str, float]:
    """List and fetch a prefix in this process, and say what that took."""
    before, started = peak_bytes(), time.perf_counter()
    objects = sum(1 for _ in listing(source))
    listed, peak_listed = time.perf_counter() - started, peak_bytes()
    with tempfile.TemporaryDirectory() as folder:
        wall, busy = time.perf_counter(), time.process_time()
        fetch_source(source, None, Path(folder))
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
    return {
        "objects": objects,
        "peak_mib": round(peak_bytes() / 2**20, 1),
        "peak_of_listing_mib": round(peak_listed / 2**20, 1),
        "peak_of_imports_mib": round(before / 2**20, 1),
        "listed_a_second": round(objects / listed),
        "fetched_a_second": round(objects / wall),
        "fetched_a_cpu_second": round(objects / busy),
    }


def compare_threads_here(source: str) -> list[dict[str, int]]:
    """Download objects of a prefix by several numbers of threads, with and without a way to the server."""
    place, connection = place_of(source), connection_from_environment()
    assert connection is not None
    names = [name for name, _ in islice(listing(source), OBJECTS_A_NUMBER_OF_THREADS)]
    measured = []
    for more in MORE_SECONDS_AN_ANSWER:
        client = make_s3_client(connection)
        client.meta.events.register("before-send.s3.GetObject", _waiting(more))
        for threads in THREADS:
            with tempfile.TemporaryDirectory() as folder:
                wanted = ((f"{place.prefix}/{name}", Path(folder) / name) for name in names)
                started = time.perf_counter()
                download_all(client, place.bucket, wanted, threads)
                wall = time.perf_counter() - started
            measured.append(
                {
                    "added_milliseconds": round(1000 * more),
                    "threads": threads,
                    "fetched_a_second": round(len(names) / wall),
                }
            )
    return measured


def _waiting(seconds: float) -> Callable[..., None]:
    def wait(**_: object) -> None:
        time.sleep(seconds)

    return wait


def in_child(way: str, source: str, connection: S3Connection) -> Any:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bucket_scale", way, source]
    environment = {**os.environ, **connection.environment()}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(objects: list[int]) -> Iterator[tuple[str, Any]]:
    """The parts of the result, against a server that is stopped afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        connection = start_seaweedfs(Path(folder), BUCKET, print)
        try:
            sources = [fill(connection, count) for count in sorted(objects)]
            yield "fetch", [in_child("--fetch-here", source, connection) for source in sources]
            yield "threads", in_child("--threads-here", sources[0], connection)
        finally:
            stop_seaweedfs(Path(folder), print)


def main() -> None:
    """Measure each number of objects, or with --fetch-here or --threads-here a prefix in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--fetch-here", metavar="SOURCE")
    parser.add_argument("--threads-here", metavar="SOURCE")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if arguments.fetch_here:
        print(json.dumps(fetch_here(arguments.fetch_here)))
        return
    if arguments.threads_here:
        print(json.dumps(compare_threads_here(arguments.threads_here)))
        return
    machine = machine_fingerprint()
    tell_result({"machine": machine, **dict(measure(arguments.objects))}, arguments.out)


if __name__ == "__main__":
    main()
