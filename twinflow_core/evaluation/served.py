"""Evaluation of an exported package: which images it is to draw, and the score of what it drew.

The drawing itself happens between the two, in a process without torch (`runtime.serving_check`), as it will
where the package serves. `python -m twinflow_core.evaluation.served request|score ...`, in a run's tree.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twinflow_core.evaluation.metrics_file import write_metrics
from twinflow_core.evaluation.prompts import Prompt, ScorerName, prompts_for
from twinflow_core.evaluation.samples import Sample, read_samples, write_samples
from twinflow_core.evaluation.scoring import judge_images, make_scorer, setting_metrics
from twinflow_core.params import PARAMS_FILE, Params, load_params

PREPARED = Path("data/prepared")
CANDIDATE = Path("eval/candidate")


def images_to_draw(params: Params, root: Path, prompts_per_task: int | None) -> list[dict[str, Any]]:
    """One entry an image, as `runtime.serving_check` reads it; noise and prompts are the evaluation's.

    Args:
        params: `evaluate`.
        root: holds data/prepared and eval/candidate.
        prompts_per_task: only the first so many prompts of each task; None for all.
    """
    prompts = prompts_for(scorer_name(root), params.evaluate, root / PREPARED)
    chosen = prompts if prompts_per_task is None else first_of_tasks(prompts, prompts_per_task)
    return [
        {"prompt_id": prompt.id, "prompt": prompt.text, "sample": sample, "seed": params.evaluate.seed}
        for prompt in chosen
        for sample in range(params.evaluate.images_per_prompt)
    ]


def first_of_tasks(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """The first `count` prompts of each task, in their order."""
    seen: Counter[str] = Counter()
    chosen = []
    for prompt in prompts:
        seen[prompt.task] += 1
        if seen[prompt.task] <= count:
            chosen.append(prompt)
    return chosen


def score_drawn(
    params: Params, root: Path, drawn: dict[str, Path], model: str, in_torch: Sequence[Sample]
) -> tuple[list[Sample], dict[str, Any]]:
    """Score what a package drew, by the scorer of the candidate.

    Args:
        params: `evaluate` and `data`.
        root: holds data/prepared and eval/candidate.
        drawn: folder with `samples.json` and `images.npz` of each setting (`nfe1`, ..).
        model: what the samples say made them.
        in_torch: the candidate's own samples on the same prompts and noise; empty for another set of prompts.

    Returns:
        The samples, and metrics under the keys of `metrics.json`: `scorer`, `candidate.nfe<k>`, and
        `difference.nfe<k>`, this score minus that of `in_torch` on the same prompts, and `diversity_ratio.nfe<k>`,
        this diversity over theirs.
    """
    name = scorer_name(root)
    scorer = make_scorer(name, root / PREPARED, params.data.square)
    known = prompts_for(name, params.evaluate, root / PREPARED)
    samples: list[Sample] = []
    metrics: dict[str, Any] = {}
    difference: dict[str, float] = {}
    diversity: dict[str, float] = {}
    for setting, folder in drawn.items():
        wanted = {entry["prompt_id"] for entry in json.loads((folder / "samples.json").read_text("utf-8"))}
        prompts = [prompt for prompt in known if prompt.id in wanted]
        images = np.load(folder / "images.npz")["images"]
        judged = judge_images(scorer, model, setting, prompts, images)
        samples += judged
        metrics[setting] = setting_metrics(scorer, judged)
        beside = [each for each in in_torch if each.setting == setting and each.prompt_id in wanted]
        if beside:
            difference[setting] = metrics[setting]["score"] - scorer.score(beside)[0]
            diversity[setting] = _kept(
                metrics[setting]["diversity"], setting_metrics(scorer, beside)["diversity"]
            )
    return samples, {
        "scorer": name,
        "candidate": metrics,
        "difference": difference,
        "diversity_ratio": diversity,
    }


def _kept(diversity: float, in_torch: float) -> float:
    """Its share of torch's; 1 where torch's images have none to lose: too few of them are right to compare."""
    return diversity / in_torch if in_torch > 0 else 1.0


def scorer_name(root: Path) -> ScorerName:
    """The scorer that the candidate was evaluated by."""
    metrics = json.loads((root / CANDIDATE / "metrics.json").read_text(encoding="utf-8"))
    name: ScorerName = metrics["scorer"]
    return name


def main() -> None:
    """Run one of the two verbs in the present folder."""
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    request = verbs.add_parser("request", help="write the list of images to draw")
    request.add_argument("--prompts-per-task", type=int)
    request.add_argument("--out", type=Path, required=True, help="JSON file")
    score = verbs.add_parser("score", help="score the folders nfe<k> below --drawn")
    score.add_argument("--drawn", type=Path, required=True)
    score.add_argument("--model", required=True)
    score.add_argument("--out", type=Path, required=True, help="folder for samples.parquet, metrics.json")
    parser.add_argument("--larger", action="store_true", help="on the prompts of the gates' second look")
    options = parser.parse_args()
    root = Path.cwd()
    params = load_params(root / PARAMS_FILE)
    larger = params.larger_evaluation() if options.larger else None
    params = params.model_copy(update={"evaluate": larger or params.evaluate})
    if options.verb == "request":
        wanted = images_to_draw(params, root, options.prompts_per_task)
        options.out.write_text(json.dumps(wanted), encoding="utf-8")
        return
    folders = {place.parent.name: place.parent for place in options.drawn.glob("nfe*/images.npz")}
    drawn = dict(sorted(folders.items(), key=lambda item: int(item[0].removeprefix("nfe"))))
    in_torch = [] if larger else read_samples(root / CANDIDATE / "samples.parquet")
    samples, metrics = score_drawn(params, root, drawn, options.model, in_torch)
    write_samples(samples, options.out / "samples.parquet")
    write_metrics(metrics, options.out / "metrics.json")


if __name__ == "__main__":
    main()
