"""The `export` stage: the candidate as an ONNX package that serves without torch, checked against torch."""

from __future__ import annotations

from pathlib import Path

from twinflow_core.backbones.loading import load_backbone
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.export.package import build_package
from twinflow_core.params import Params
from twinflow_core.stages.entry import run_stage

OUTPUT = Path("export")


def export(params: Params, root: Path) -> None:
    """models/candidate to export/: graphs, weights, configurations, parity.json, manifest.json."""
    backbone = load_backbone(root / "models/candidate", params.data.resolution)
    with whole_folder(root / OUTPUT) as package:
        options = params.export
        build_package(
            backbone,
            package,
            options.steps,
            options.opset,
            options.precision,
            options.sizes,
            options.text_precision,
        )


if __name__ == "__main__":
    run_stage(export)
