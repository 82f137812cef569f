"""The `reference` stage: the base at many steps with guidance, the ceiling, and at one step, the floor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twinflow_core.backbones.loading import load_backbone
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.evaluation.generation import few_step_sampler, many_step_sampler
from twinflow_core.evaluation.metrics_file import write_metrics
from twinflow_core.evaluation.prompts import prompts_for, resolve_scorer
from twinflow_core.evaluation.samples import Sample, samples_at, write_samples
from twinflow_core.evaluation.scoring import make_scorer
from twinflow_core.evaluation.torch_evaluation import SIZES_KEY, TorchEvaluation
from twinflow_core.params import Params
from twinflow_core.stages.entry import run_stage

OUTPUT = Path("eval/reference")


def reference(params: Params, root: Path) -> None:
    """Sample and score models/base in both settings: samples.parquet and metrics.json.

    At the other sizes that are exported, at many steps alone: samples_<size>.parquet.
    """
    options = params.evaluate
    prepared = root / "data/prepared"
    scorer = make_scorer(resolve_scorer(options, prepared), prepared, params.data.square)
    prompts = prompts_for(scorer.name, options, prepared)
    backbone = load_backbone(root / "models/base", params.data.resolution)
    for size in params.other_sizes:
        backbone.require_size(size.height, size.width, SIZES_KEY)
    guided = many_step_sampler(backbone, params.reference.steps, params.reference.guidance)
    evaluation = TorchEvaluation(backbone, scorer, prompts, options)
    settings = {"many": (guided, 1), "nfe1": (few_step_sampler(backbone), 1)}
    samples, square = evaluation.settings("reference", settings, "base")
    sized: dict[str, list[Sample]] = {}
    sizes: dict[str, Any] = {}
    for size in params.other_sizes:
        there, name = evaluation.at_size(size, prepared), str(size)
        sized[name], found = there.settings("reference", {"many": (guided, 1)}, f"base, {size}")
        sizes[name] = found["many"]
    guidance = backbone.many_step_guidance(params.reference.guidance)
    evaluations = params.reference.steps * (1 if guidance == 1 else 2)
    metrics = {"scorer": scorer.name, "nfe": evaluations, **square["many"], "nfe1": square["nfe1"]}
    with whole_folder(root / OUTPUT) as output:
        write_samples(samples, output / "samples.parquet")
        for name, drawn in sized.items():
            write_samples(drawn, samples_at(output, name))
        write_metrics(metrics | ({"sizes": sizes} if sizes else {}), output / "metrics.json")


if __name__ == "__main__":
    run_stage(reference)
