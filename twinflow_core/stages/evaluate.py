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
from twinflow_core.evaluation.samples import Sample, read_samples, samples_at, write_samples
from twinflow_core.evaluation.scoring import make_scorer, ratios
from twinflow_core.evaluation.torch_evaluation import TorchEvaluation
from twinflow_core.params import Params
from twinflow_core.report.grid import GridRow, comparison_grid
from twinflow_core.stages.entry import run_stage

OUTPUT = Path("eval/candidate")
PROMPTS_A_TASK_IN_GRID = 2


def evaluate(params: Params, root: Path) -> None:
    """Sample and score models/candidate: samples.parquet, metrics.json (the gates' document), grid.png.

    The candidate's guidance is trained in, so that many steps cost one evaluation each. At the other sizes that are
    exported, at few steps alone: samples_<size>.parquet.
    """
    options = params.evaluate
    prepared, reference = root / "data/prepared", root / "eval/reference"
    reference_metrics = json.loads((reference / "metrics.json").read_text(encoding="utf-8"))
    reference_sizes = reference_metrics.pop("sizes", {})
    scorer = make_scorer(reference_metrics["scorer"], prepared, params.data.square)
    prompts = prompts_for(scorer.name, options, prepared)
    backbone = load_backbone(root / "models/candidate", params.data.resolution)
    few, many = few_step_sampler(backbone), many_step_sampler(backbone, params.reference.steps, guidance=1)
    in_few = {f"nfe{steps}": (few, steps) for steps in options.few_steps}
    evaluation = TorchEvaluation(backbone, scorer, prompts, options)
    samples, candidate = evaluation.settings("candidate", in_few | {"many": (many, 1)}, "candidate")
    sized: dict[str, list[Sample]] = {}
    sizes: dict[str, Any] = {}
    for size in params.other_sizes:
        there, name = evaluation.at_size(size, prepared), str(size)
        sized[name], found = there.settings("candidate", in_few, f"candidate, {size}")
        sizes[name] = _compared(reference_sizes[name], found)
    metrics = {"scorer": scorer.name, **_compared(reference_metrics, candidate)}
    with whole_folder(root / OUTPUT) as output:
        write_samples(samples, output / "samples.parquet")
        for name, drawn in sized.items():
            write_samples(drawn, samples_at(output, name))
        write_metrics(metrics | ({"sizes": sizes} if sizes else {}), output / "metrics.json")
        rows = _grid_rows(read_samples(reference / "samples.parquet"), samples)
        (output / "grid.png").write_bytes(comparison_grid(rows))


def _compared(reference: dict[str, Any], candidate: dict[str, Any]) -> dict[str, Any]:
    return {"reference": reference, "candidate": candidate, "ratio": ratios(reference, candidate)}


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
