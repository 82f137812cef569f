"""What fewer bits cost and save: size, likeness to torch, and the evaluation's score, of one candidate.

    python -m benchmarks.precision [--root .]

`root` holds what a run's stages wrote: data/prepared, eval/candidate, models/candidate. The candidate is traced once;
each precision is packaged as the export stage does it, which refuses what falls below its PSNR; then drawn in ONNX
Runtime and scored on held-out prompts as the serving gate does it. Speed is `benchmarks.serving_speed`'s.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import onnx_ir as ir

from benchmarks.machine import machine_fingerprint
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.evaluation.samples import read_samples
from twinflow_core.evaluation.served import images_to_draw, score_drawn
from twinflow_core.export.layout import write_configurations, write_graphs
from twinflow_core.export.package import PARITY, describe_and_measure
from twinflow_core.export.pieces import Pieces, trace
from twinflow_core.export.precision import Precision
from twinflow_core.export.provenance import provenance
from twinflow_core.params import PARAMS_FILE, Params, load_params
from twinflow_core.runtime.package import TEXT_GRAPH, generator_graph
from twinflow_core.runtime.serving_check import check_serving


class Bits(NamedTuple):
    """Precisions of a package's two halves."""

    denoiser: Precision
    text: Precision


ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks/results/precision.json"
MEASURED = (
    Bits("fp32", "fp32"),
    Bits("fp16", "fp32"),
    Bits("int8", "fp32"),
    Bits("int4", "fp32"),
    Bits("fp32", "fp16"),
    Bits("fp32", "int8"),
    Bits("fp32", "int4"),
    Bits("int8", "int8"),
)
# The serving gate's margins on the score and on diversity, against the candidate in torch.
SCORE_MARGIN = -0.02
DIVERSITY_SHARE = 0.9


def measure_precision(
    backbone: Backbone, pieces: Pieces, bits: Bits, params: Params, root: Path
) -> dict[str, Any]:
    """One row: refused, or sizes, parity and scores with what the gates would say."""
    with tempfile.TemporaryDirectory() as temporary:
        package, out = Path(temporary) / "package", Path(temporary) / "drawn"
        package.mkdir()
        out.mkdir()
        write_graphs(package, backbone, pieces, [1], bits.denoiser, lambda *_: None, text_precision=bits.text)
        for model in pieces.text.values():
            # What was saved as it is refers to files that will be gone.
            ir.external_data.load_to_model(model)
        write_configurations(package, backbone)
        try:
            describe_and_measure(
                backbone, package, [1], pieces.opset, bits.denoiser, text_precision=bits.text
            )
        except TwinflowError as error:
            return {"refused": error.what}
        wanted = images_to_draw(params, root, params.serving.rescore_prompts_per_task)
        check_serving(package, wanted, out, steps=1, batch=1, repeats=1)
        candidate = read_samples(root / "eval/candidate/samples.parquet")
        _, metrics = score_drawn(params, root, {"nfe1": out}, "served", candidate)
        parity = json.loads((package / PARITY).read_text(encoding="utf-8"))
        sizes = [_bytes_of_graph(package / name) for name in (generator_graph(1), TEXT_GRAPH)]
    difference, diversity = metrics["difference"]["nfe1"], metrics["diversity_ratio"]["nfe1"]
    return {
        "generator_mb": round(sizes[0] / 2**20, 2),
        "text_mb": round(sizes[1] / 2**20, 2),
        "psnr_db": parity["psnr"],
        "max_abs": parity["max_abs"],
        "score": metrics["candidate"]["nfe1"]["score"],
        "score_difference": difference,
        "diversity": metrics["candidate"]["nfe1"]["diversity"],
        "diversity_ratio": diversity,
        "passes": difference >= SCORE_MARGIN and diversity >= DIVERSITY_SHARE,
    }


def _bytes_of_graph(path: Path) -> int:
    """What a graph needs: its own file and the ranges of weights that it points to."""
    graph = onnx.load(path, load_external_data=False).graph
    outside = [
        int(entry.value)
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "length"
    ]
    return path.stat().st_size + sum(outside)


def main() -> None:
    """Measure, print, write benchmarks/results/precision.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    params = load_params(given.root / PARAMS_FILE)
    machine = machine_fingerprint()
    backbone = load_backbone(given.root / "models/candidate")
    pieces = trace(backbone, params.export.opset, lambda done, name: print("traced", name, flush=True))
    rows = []
    for bits in MEASURED:
        rows.append(bits._asdict() | measure_precision(backbone, pieces, bits, params, given.root))
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "candidate": provenance(backbone),
        "rows": rows,
        "prompts_per_task": params.serving.rescore_prompts_per_task,
        "images_per_prompt": params.evaluate.images_per_prompt,
        "machine": machine,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
