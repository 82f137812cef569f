"""The `reference` stage: the base at many steps with guidance, the ceiling, and at one step, the floor."""

from __future__ import annotations

from pathlib import Path

from twinflow_core.backbones.loading import load_backbone
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.evaluation.generation import few_step_sampler, many_step_sampler
from twinflow_core.evaluation.metrics_file import write_metrics
from twinflow_core.evaluation.prompts import prompts_for, resolve_scorer
from twinflow_core.evaluation.samples import write_samples
from twinflow_core.evaluation.scoring import make_scorer, setting_metrics
from twinflow_core.evaluation.torch_evaluation import TorchEvaluation
from twinflow_core.params import Params
from twinflow_core.stages.entry import run_stage

OUTPUT = Path("eval/reference")


def reference(params: Params, root: Path) -> None:
    """Sample and score models/base in both settings: samples.parquet and metrics.json."""
    options = params.evaluate
    prepared = root / "data/prepared"
    scorer = make_scorer(resolve_scorer(options, prepared), prepared, params.data.resolution)
    prompts = prompts_for(scorer.name, options, prepared)
    backbone = load_backbone(root / "models/base", params.data.resolution)
    guided = many_step_sampler(backbone, params.reference.steps, params.reference.guidance)
    evaluation = TorchEvaluation(backbone, scorer, prompts, options)
    samples = {}
    for setting, sampler in (("many", guided), ("nfe1", few_step_sampler(backbone))):
        samples[setting] = evaluation.samples("reference", setting, sampler, 1, f"base, {setting}")
    guidance = backbone.many_step_guidance(params.reference.guidance)
    evaluations = params.reference.steps * (1 if guidance == 1 else 2)
    metrics = {
        "scorer": scorer.name,
        "nfe": evaluations,
        **setting_metrics(scorer, samples["many"]),
        "nfe1": setting_metrics(scorer, samples["nfe1"]),
    }
    with whole_folder(root / OUTPUT) as output:
        write_samples(samples["many"] + samples["nfe1"], output / "samples.parquet")
        write_metrics(metrics, output / "metrics.json")


if __name__ == "__main__":
    run_stage(reference)
