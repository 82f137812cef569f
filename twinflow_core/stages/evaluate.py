"""The `evaluate` stage: the candidate at few and many steps, on the prompts and noise of the reference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twinflow_core.backbones.loading import load_backbone
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.evaluation.generation import few_step_sampler, many_step_sampler
from twinflow_core.evaluation.metrics_file import write_metrics
from twinflow_core.evaluation.prompts import prompts_for
from twinflow_core.evaluation.samples import Sample, read_samples, write_samples
from twinflow_core.evaluation.scoring import make_scorer, ratios, setting_metrics
from twinflow_core.evaluation.torch_evaluation import TorchEvaluation
from twinflow_core.params import Params
from twinflow_core.report.grid import GridRow, comparison_grid
from twinflow_core.stages.entry import run_stage

OUTPUT = Path("eval/candidate")
PROMPTS_A_TASK_IN_GRID = 2


def evaluate(params: Params, root: Path) -> None:
    """Sample and score models/candidate: samples.parquet, metrics.json (the gates' document), grid.png.

    The candidate's guidance is trained in, so that many steps cost one evaluation each.
    """
    options = params.evaluate
    prepared, reference = root / "data/prepared", root / "eval/reference"
    reference_metrics = json.loads((reference / "metrics.json").read_text(encoding="utf-8"))
    scorer = make_scorer(reference_metrics["scorer"], prepared, params.data.resolution)
    prompts = prompts_for(scorer.name, options, prepared)
    backbone = load_backbone(root / "models/candidate", params.data.resolution)
    few, many = few_step_sampler(backbone), many_step_sampler(backbone, params.reference.steps, guidance=1)
    settings = {f"nfe{steps}": (few, steps) for steps in options.few_steps} | {"many": (many, 1)}
    evaluation = TorchEvaluation(backbone, scorer, prompts, options)
    samples: list[Sample] = []
    candidate: dict[str, Any] = {}
    for setting, (sampler, evaluations) in settings.items():
        judged = evaluation.samples("candidate", setting, sampler, evaluations, f"candidate, {setting}")
        candidate[setting] = setting_metrics(scorer, judged)
        samples += judged
    metrics = {
        "scorer": scorer.name,
        "reference": reference_metrics,
        "candidate": candidate,
        "ratio": ratios(reference_metrics, candidate),
    }
    with whole_folder(root / OUTPUT) as output:
        write_samples(samples, output / "samples.parquet")
        write_metrics(metrics, output / "metrics.json")
        rows = _grid_rows(read_samples(reference / "samples.parquet"), samples)
        (output / "grid.png").write_bytes(comparison_grid(rows))


def _grid_rows(reference: Sequence[Sample], candidate: Sequence[Sample]) -> list[GridRow]:
    """The first prompts of each task: the base's many steps on the left, the candidate's one on the right."""
    shown: dict[str, list[str]] = {}
    for sample in candidate:
        ids = shown.setdefault(sample.task, [])
        if sample.prompt_id not in ids and len(ids) < PROMPTS_A_TASK_IN_GRID:
            ids.append(sample.prompt_id)
    few = min((s.setting for s in candidate if s.setting != "many"), key=lambda name: int(name[3:]))

    def images(samples: Sequence[Sample], setting: str, prompt_id: str) -> list[Any]:
        return [s.pixels for s in samples if s.setting == setting and s.prompt_id == prompt_id]

    texts = {sample.prompt_id: sample.prompt for sample in candidate}
    return [
        GridRow(texts[i], images(reference, "many", i), images(candidate, few, i))
        for ids in shown.values()
        for i in ids
    ]


if __name__ == "__main__":
    run_stage(evaluate)
