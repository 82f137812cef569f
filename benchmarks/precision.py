"""What fewer bits cost and save: size, speed, likeness to torch, and the evaluation's score, of one candidate.

    python -m benchmarks.precision [--root .]

`root` holds what a run's stages wrote: data/prepared, eval/candidate, models/candidate. Each precision is exported
as the export stage does it, which refuses what falls below its PSNR; then drawn in ONNX Runtime and scored on
held-out prompts as the serving gate does it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import machine_fingerprint
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.evaluation.samples import read_samples
from twinflow_core.evaluation.served import images_to_draw, score_drawn
from twinflow_core.export.package import PARITY, build_package
from twinflow_core.export.precision import Precision
from twinflow_core.params import PARAMS_FILE, Params, load_params
from twinflow_core.runtime.package import generator_graph
from twinflow_core.runtime.serving_check import check_serving

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks/results/precision.json"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int4")
# The serving gate's margin on the score, and the quality gate's on diversity, against the candidate in torch.
SCORE_MARGIN = -0.02
DIVERSITY_SHARE = 0.8
TIMED_BATCH = 4
REPEATS = 20


def measure_precision(backbone: Backbone, precision: Precision, params: Params, root: Path) -> dict[str, Any]:
    """One row: refused, or sizes, parity, speed and scores with what the gates would say."""
    with tempfile.TemporaryDirectory() as temporary:
        package, out = Path(temporary) / "package", Path(temporary) / "drawn"
        package.mkdir()
        out.mkdir()
        try:
            build_package(backbone, package, [1], params.export.opset, precision)
        except TwinflowError as error:
            return {"refused": error.what}
        wanted = images_to_draw(params, root, params.serving.rescore_prompts_per_task)
        served = check_serving(package, wanted, out, steps=1, batch=TIMED_BATCH, repeats=REPEATS)
        candidate = read_samples(root / "eval/candidate/samples.parquet")
        _, metrics = score_drawn(params, root, {"nfe1": out}, "served", candidate)
        parity = json.loads((package / PARITY).read_text(encoding="utf-8"))
        size = _bytes_of_generator(package)
    difference, diversity = metrics["difference"]["nfe1"], metrics["diversity_ratio"]["nfe1"]
    return {
        "generator_mb": round(size / 2**20, 2),
        "p50_ms": round(served["p50_ms"], 2),
        "p95_ms": round(served["p95_ms"], 2),
        "psnr_db": parity["psnr"],
        "max_abs": parity["max_abs"],
        "score": metrics["candidate"]["nfe1"]["score"],
        "score_difference": difference,
        "diversity": metrics["candidate"]["nfe1"]["diversity"],
        "diversity_ratio": diversity,
        "passes": difference >= SCORE_MARGIN and diversity >= DIVERSITY_SHARE,
    }


def _bytes_of_generator(package: Path) -> int:
    """What the one-step graph needs: its own file and the ranges of weights that it points to."""
    import onnx

    graph = onnx.load(package / generator_graph(1), load_external_data=False).graph
    outside = [
        int(entry.value)
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "length"
    ]
    return (package / generator_graph(1)).stat().st_size + sum(outside)


def main() -> None:
    """Measure, print, write benchmarks/results/precision.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    params = load_params(given.root / PARAMS_FILE)
    machine = machine_fingerprint()
    backbone = load_backbone(given.root / "models/candidate")
    rows = {}
    for precision in PRECISIONS:
        rows[precision] = measure_precision(backbone, precision, params, given.root)
        print(precision, json.dumps(rows[precision]), flush=True)
    result = {"precisions": rows, "batch": TIMED_BATCH, "machine": machine}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
