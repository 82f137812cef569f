"""What `prepare` takes as the data grows: peak memory and images a second a core, by the real reader and writer.

`python -m benchmarks.data_scale [--rows N ...] [--names N ...]` packs tiny images into WebDataset tars, prepares each
set in a process of its own, and writes benchmarks/results/data_scale.json. What is not measured but extrapolated says
so. Names are of loose images with captions beside them, which are listed as the stage lists them, and not opened.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine_fingerprint
from benchmarks.result_file import tell_result
from twinflow_core.peak_memory import peak_bytes

RESULT = Path(__file__).parent / "results/data_scale.json"
ROOT = Path(__file__).parents[1]
ROWS_A_TAR = 10_000
SIDE = 32
CELLS = 8
EXTRAPOLATED_ROWS = 1_000_000
# Measured between ten thousand rows and a million; 72 of them are the index of hashes, with room to grow.
HELD_BYTES_A_ROW = 145


def write_tars(folder: Path, rows: int) -> None:
    """Tars of random pictures of 64 plain cells, 32 pixels a side, each with a caption of its own."""
    noise = np.random.default_rng(0)
    for first in range(0, rows, ROWS_A_TAR):
        numbers = range(first, min(rows, first + ROWS_A_TAR))
        cells = noise.integers(0, 256, (len(numbers), CELLS, CELLS, 3), dtype=np.uint8)
        with (folder / f"{first // ROWS_A_TAR:05d}.tar").open("wb") as tar:
            for number, each in zip(numbers, cells, strict=True):
                pixels = each.repeat(SIDE // CELLS, axis=0).repeat(SIDE // CELLS, axis=1)
                for ending, body in (("png", png(pixels)), ("txt", f"picture {number}".encode())):
                    info = tarfile.TarInfo(f"{number:08d}.{ending}")
                    info.size = len(body)
                    padding = bytes(-len(body) % tarfile.BLOCKSIZE)
                    tar.write(info.tobuf(tarfile.USTAR_FORMAT) + body + padding)
            tar.write(bytes(2 * tarfile.BLOCKSIZE))


def png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a PNG without filters: a million by Pillow would take longer than preparing them."""
    height, width, _ = pixels.shape
    # Each line begins with its filter's number, 0.
    lines = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def measure_here(root: Path) -> dict[str, float]:
    """Prepare `root`/data/raw in this process, and say what that took."""
    from twinflow_core.params import load_params
    from twinflow_core.stages.prepare import prepare

    params = load_params(ROOT / "params.yaml")
    params = params.model_copy(update={"run": params.run.model_copy(update={"workers": 1})})
    before, started = peak_bytes() / 2**20, (time.perf_counter(), time.process_time())
    prepare(params, root)
    wall, busy = time.perf_counter() - started[0], time.process_time() - started[1]
    rows = json.loads((root / "data/prepared/summary.json").read_text())["rows"]
    return {
        "rows": rows,
        "peak_mib": round(peak_bytes() / 2**20, 1),
        "peak_of_imports_mib": round(before, 1),
        "wall_seconds": round(wall, 1),
        "images_a_cpu_second": round(rows / busy, 1),
    }


def write_names(folder: Path, rows: int) -> None:
    """So many images without content, all in one folder, each with a caption beside it."""
    for number in range(rows):
        (folder / f"{number:08d}.png").touch()
        (folder / f"{number:08d}.txt").write_text(f"picture {number}")


def list_here(root: Path) -> dict[str, float]:
    """List the loose images of `root`/data/raw in this process, and say what that took."""
    from twinflow_core.data.sources import find_pairs

    before, started = peak_bytes() / 2**20, time.process_time()
    rows = sum(pair.rejection is None for pair in find_pairs(root / "data/raw"))
    return {
        "rows": rows,
        "peak_mib": round(peak_bytes() / 2**20, 1),
        "peak_of_imports_mib": round(before, 1),
        "names_a_cpu_second": round(rows / (time.process_time() - started)),
    }


def measure(rows: int, write: Callable[[Path, int], None], way: str) -> dict[str, Any]:
    """Write so many rows, and measure in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "data/raw"
        raw.mkdir(parents=True)
        write(raw, rows)
        command = [sys.executable, "-m", "benchmarks.data_scale", way, folder]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return measured


def extrapolated(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """A million rows, not measured: the largest peak, and what each row more was found to hold."""
    last = measured[-1]
    more = (EXTRAPOLATED_ROWS - last["rows"]) * HELD_BYTES_A_ROW / 2**20
    return {
        "extrapolated_not_measured": True,
        "rows": EXTRAPOLATED_ROWS,
        "bytes_a_row": HELD_BYTES_A_ROW,
        "peak_mib": round(max(each["peak_mib"] for each in measured) + more, 1),
        "cpu_minutes": round(EXTRAPOLATED_ROWS / last["images_a_cpu_second"] / 60, 1),
    }


def main() -> None:
    """Measure each size, or with --here or --list-here the data of one folder in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--names", type=int, nargs="*", default=[10_000, 200_000])
    parser.add_argument("--here", type=Path)
    parser.add_argument("--list-here", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure_here(arguments.here)))
        return
    if arguments.list_here:
        print(json.dumps(list_here(arguments.list_here)))
        return
    machine = machine_fingerprint()
    measured = [measure(rows, write_tars, "--here") for rows in sorted(arguments.rows)]
    result = {"machine": machine, "image": f"{SIDE}x{SIDE} PNG in tars", "workers": 1, "prepare": measured}
    result["loose_names"] = [measure(rows, write_names, "--list-here") for rows in sorted(arguments.names)]
    if measured[-1]["rows"] < EXTRAPOLATED_ROWS:
        result["extrapolation"] = extrapolated(measured)
    tell_result(result, arguments.out)


if __name__ == "__main__":
    main()
