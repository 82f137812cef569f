"""What `prepare` takes as the data grows: peak memory and images a second a core, by the real reader and writer.

`python -m benchmarks.data_scale [--rows N ...]` packs tiny images into WebDataset tars, prepares each set in a
process of its own, and writes benchmarks/results/data_scale.json. What is not measured but extrapolated says so.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import machine_fingerprint
from benchmarks.result_file import tell_result
from twinflow_core.peak_memory import peak_bytes

RESULT = Path(__file__).parent / "results/data_scale.json"
ROOT = Path(__file__).parents[1]
ROWS_A_TAR = 10_000
SIDE = 32
CELLS = 8
EXTRAPOLATED_ROWS = 1_000_000
# The index of hashes with room to grow (52 bytes, 12 more), and a caption's hash (8, and room for the latest).
HELD_BYTES_A_ROW = 80


def write_tars(folder: Path, rows: int) -> None:
    """Tars of random pictures of 64 plain cells, 32 pixels a side, each with a caption of its own."""
    noise = np.random.default_rng(0)
    for first in range(0, rows, ROWS_A_TAR):
        with tarfile.open(folder / f"{first // ROWS_A_TAR:05d}.tar", "w") as tar:
            for number in range(first, min(rows, first + ROWS_A_TAR)):
                cells = noise.integers(0, 256, (CELLS, CELLS, 3), dtype=np.uint8)
                pixels = cells.repeat(SIDE // CELLS, axis=0).repeat(SIDE // CELLS, axis=1)
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
                for ending, body in (("png", stream.getvalue()), ("txt", f"picture {number}".encode())):
                    info = tarfile.TarInfo(f"{number:08d}.{ending}")
                    info.size = len(body)
                    tar.addfile(info, io.BytesIO(body))


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


def measure(rows: int) -> dict[str, Any]:
    """Pack and prepare so many rows; one worker, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "data/raw"
        raw.mkdir(parents=True)
        write_tars(raw, rows)
        command = [sys.executable, "-m", "benchmarks.data_scale", "--here", folder]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return measured


def extrapolated(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """A million rows, not measured: the largest peak, and what each row more is known to hold at most."""
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
    """Measure each size, or with --here the data of one folder in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--here", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure_here(arguments.here)))
        return
    machine = machine_fingerprint()
    measured = [measure(rows) for rows in sorted(arguments.rows)]
    result = {"machine": machine, "image": f"{SIDE}x{SIDE} PNG in tars", "workers": 1, "prepare": measured}
    if measured[-1]["rows"] < EXTRAPOLATED_ROWS:
        result["extrapolation"] = extrapolated(measured)
    tell_result(result, arguments.out)


if __name__ == "__main__":
    main()
