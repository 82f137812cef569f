"""Models with per-image results drawn at random, and the metrics document that goes with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from twinflow_core.gates.evidence import Measurements
from twinflow_core.gates.metrics import TASKS
from twinflow_core.gates.samples import ImageSet, PromptScores, prompt_scores


def sample_table(
    rates: dict[ImageSet, float],
    *,
    prompts_per_task: int = 16,
    images_per_prompt: int = 4,
    seed: int = 0,
) -> pa.Table:
    """Images that are correct at the rate of their set; prompts are harder or easier for all sets alike."""
    generator = np.random.default_rng(seed)
    rows = []
    for task in TASKS:
        for index in range(prompts_per_task):
            ease = generator.normal(0, 0.15)
            prompt_id = f"{task}-{index:03d}"
            for (model, setting), rate in rates.items():
                for sample in range(images_per_prompt):
                    rows.append(
                        {
                            "model": model,
                            "setting": setting,
                            "task": task,
                            "slice": "odd" if index % 2 else "even",
                            "prompt_id": prompt_id,
                            "prompt": f"a photo of {prompt_id}",
                            "sample": sample,
                            "correct": float(generator.random() < np.clip(rate + ease, 0, 1)),
                        }
                    )
    return pa.Table.from_pylist(rows)


def task_scores(scores: PromptScores) -> dict[str, float]:
    """The mean over images of every task, in plain Python."""
    result = {}
    for task in sorted(set(scores.tasks)):
        rows = [index for index, each in enumerate(scores.tasks) if each == task]
        correct = sum(float(scores.correct[row]) for row in rows)
        result[task] = correct / sum(float(scores.images[row]) for row in rows)
    return result


def score(scores: PromptScores) -> float:
    """The unweighted mean of the tasks' means."""
    return float(np.mean(list(task_scores(scores).values())))


def measurements(table: pa.Table) -> Measurements:
    """Scores out of a table with a candidate at nfe1 and, as it may be, a reference at many steps."""
    scores = prompt_scores(table)
    candidate = scores["candidate", "nfe1"]
    metrics: dict[str, Any] = {
        "scorer": "shapes",
        "candidate": {"nfe1": {"score": score(candidate), "tasks": task_scores(candidate), "diversity": 0.3}},
    }
    if ("reference", "many") in scores:
        reference = score(scores["reference", "many"])
        metrics["reference"] = {"score": reference, "diversity": 0.3}
        metrics["ratio"] = {"score_nfe1": score(candidate) / reference, "diversity_nfe1": 1.0}
    return Measurements(metrics, scores)


def candidate_at(rate: float, **design: int) -> Measurements:
    """A candidate alone, right at about this rate."""
    return measurements(sample_table({("candidate", "nfe1"): rate}, **design))
