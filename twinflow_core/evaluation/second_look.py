"""The candidate in torch at few steps on the larger set of the gates' second look.

`python -m twinflow_core.evaluation.second_look --settings nfe1 --out FOLDER`, in a run's tree.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twinflow_core.backbones.loading import load_backbone
from twinflow_core.evaluation.generation import few_step_sampler
from twinflow_core.evaluation.metrics_file import write_metrics
from twinflow_core.evaluation.prompts import prompts_for
from twinflow_core.evaluation.samples import Sample, write_samples
from twinflow_core.evaluation.scoring import make_scorer
from twinflow_core.evaluation.served import PREPARED, scorer_name
from twinflow_core.evaluation.torch_evaluation import TorchEvaluation
from twinflow_core.params import PARAMS_FILE, EvaluateParams, Params, load_params


def evaluate_more(
    params: Params, options: EvaluateParams, root: Path, settings: Sequence[str]
) -> tuple[list[Sample], dict[str, Any]]:
    """Draw and score models/candidate again, on other prompts than the evaluation's.

    Args:
        params: `data`.
        options: how many prompts and images.
        root: holds data/prepared, models/candidate and eval/candidate, which names the scorer.
        settings: `nfe1`, ..

    Returns:
        The samples, and metrics under the keys of `metrics.json`: `scorer`, `candidate.nfe<k>`.
    """
    scorer = make_scorer(scorer_name(root), root / PREPARED, params.data.square)
    prompts = prompts_for(scorer.name, options, root / PREPARED)
    backbone = load_backbone(root / "models/candidate", params.data.resolution)
    few = few_step_sampler(backbone)
    evaluation = TorchEvaluation(backbone, scorer, prompts, options)
    drawn = {setting: (few, int(setting.removeprefix("nfe"))) for setting in settings}
    samples, metrics = evaluation.settings("candidate", drawn, "second look")
    return samples, {"scorer": scorer.name, "candidate": metrics}


def main() -> None:
    """Write samples.parquet and metrics.json for the candidate of the present folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    root = Path.cwd()
    params = load_params(root / PARAMS_FILE)
    samples, metrics = evaluate_more(
        params, params.larger_evaluation() or params.evaluate, root, told.settings
    )
    write_samples(samples, told.out / "samples.parquet")
    write_metrics(metrics, told.out / "metrics.json")


if __name__ == "__main__":
    main()
