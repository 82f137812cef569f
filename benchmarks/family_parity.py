"""Does every family's package draw what torch draws? Tiny pipelines of the real classes, exported whole.

    python -m benchmarks.family_parity [--families sana z-image] [--steps 1 2 4] [--opset 20] [--sizes 64x32]

From texts and noise to pixels of 32 x 32 images, through the runtime that serves, on random and zero noise, batches of
1 and 3, four prompts of unlike lengths. FLUX.2's language models have three layers here instead of 28 and more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.backbones.families import BUILDERS, RESOLUTION
from tests.backbones.tiny_flux2 import (
    SHALLOW,
    build_tiny_flux2_dev,
    build_tiny_flux2_klein,
    reading_shallow,
)
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.export.layout import write_configurations, write_graphs
from twinflow_core.export.package import describe_package
from twinflow_core.export.parity import measure_parity
from twinflow_core.export.pieces import trace
from twinflow_core.image_size import ImageSize
from twinflow_core.runtime.loaded_package import LoadedPackage

PIPELINES: dict[str, Callable[[Path], Path]] = BUILDERS | {
    "flux2": partial(build_tiny_flux2_dev, layers=SHALLOW),
    "flux2-klein": partial(build_tiny_flux2_klein, layers=SHALLOW),
}
RESULT = Path(__file__).parent / "results/family_parity.json"


def measure(
    folder: Path, build: Callable[[Path], Path], steps: list[int], opset: int, sizes: list[ImageSize]
) -> dict[str, Any]:
    """Parity at each number of steps, the worst of all sizes."""
    backbone = load_backbone(build(folder / "pipeline"), RESOLUTION)
    package = folder / "package"
    package.mkdir()
    pieces = trace(backbone, opset, lambda *_: None)
    write_graphs(package, backbone, pieces, steps, "fp32", lambda *_: None, sizes)
    write_configurations(package, backbone)
    row: dict[str, Any] = {"opset": opset}
    for count in steps:
        row[f"nfe{count}"] = _parity(backbone, package, count, opset, sizes)
    return row | {"sizes": [f"{RESOLUTION}x{RESOLUTION}", *map(str, sizes)]}


def _parity(
    backbone: Backbone, package: Path, steps: int, opset: int, sizes: list[ImageSize]
) -> dict[str, float | int]:
    describe_package(backbone, package, [steps], opset, "fp32", sizes).write(package)
    return measure_parity(backbone, LoadedPackage.from_folder(package, "cpu", threads=1))


def main() -> None:
    """Measure, print a table, write benchmarks/results/family_parity.json; known families keep their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=list(PIPELINES), default=list(PIPELINES))
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--opset", type=int, default=20)
    parser.add_argument("--sizes", type=ImageSize.read, nargs="*", default=[], help="besides 32x32")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    rows = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    for family in given.families:
        with tempfile.TemporaryDirectory() as folder, reading_shallow():
            rows[family] = measure(Path(folder), PIPELINES[family], given.steps, given.opset, given.sizes)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        print(family, json.dumps(rows[family]), flush=True)
    print(table(rows, given.steps))


def table(rows: dict[str, Any], steps: list[int]) -> str:
    """The rows as docs/serving.md shows them."""
    head = ["family", *(f"NFE {count}" for count in steps)]
    lines = [head, ["---"] * len(head)]
    for family, row in rows.items():
        lines.append([family, *(f"{row[f'nfe{count}']['max_abs']:.0e}" for count in steps)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
