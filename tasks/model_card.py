"""The facts of a run's model card, read from its working tree, and the package with the card in it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tasks.run import Run
from twinflow_core.gates.samples import PromptScores, read_scores
from twinflow_core.gates.statistics import (
    TooFewPromptsError,
    degrees_of_freedom,
    one_sided_bounds,
    resampled_task_means,
)
from twinflow_core.model_card import CardFacts, Interval, model_card, stated_licence
from twinflow_core.runtime.package import read_manifest

CARD = "README.md"
LEVEL = 0.95
# Not those of the gates: a card must not change with the rules that its model is judged by.
RESAMPLES, SEED = 2000, 0


@contextmanager
def package_with_card(run: Run, lineage: dict[str, str], metrics: dict[str, Any]) -> Iterator[Path]:
    """The exported package and its card in one folder, which lasts as long as the context.

    The stage's own output stays as DVC knows it; its files are linked, not copied.
    """
    with tempfile.TemporaryDirectory(dir=run.tree.parent) as folder:
        package = Path(folder) / "package"
        shutil.copytree(run.tree / "export", package, symlinks=True, copy_function=os.link)
        (package / CARD).write_text(model_card(card_facts(run, lineage, metrics)), encoding="utf-8")
        yield package


def card_facts(run: Run, lineage: dict[str, str], metrics: dict[str, Any]) -> CardFacts:
    """What the run's stages left behind, by content alone."""
    manifest = read_manifest(run.tree / "export")
    scores = read_scores(run.tree / "eval/candidate/samples.parquet")
    intervals = {
        setting: found
        for (model, setting), each in scores.items()
        if model == "candidate" and (found := score_interval(each))
    }
    summary = run.tree / "data/prepared/summary.json"
    return CardFacts(
        model=run.params.registry.model,
        family=manifest.family,
        resolution=manifest.resolution,
        steps=tuple(manifest.nfe),
        data=json.loads(summary.read_text(encoding="utf-8")),
        licence=stated_licence(run.tree / "models/base"),
        lineage=lineage,
        options=run.params.finetune,
        metrics=metrics,
        intervals=intervals,
        level=LEVEL,
        prompt=next(iter(scores.values())).prompts[0],
    )


def score_interval(scores: PromptScores) -> Interval | None:
    """Where the score over all prompts of this kind lies; None where single images or too few prompts say nothing."""
    if not scores.scored:
        return None
    tasks, counts = np.unique(np.asarray(scores.tasks), return_counts=True)
    try:
        means = resampled_task_means(
            scores.tasks, scores.correct[:, None], scores.images[:, None], RESAMPLES, SEED
        )[:, :, 0]
    except TooFewPromptsError:
        return None
    freedom = degrees_of_freedom(means / len(tasks), counts.astype(np.float64))
    low, high = one_sided_bounds(means.mean(1), (1 + LEVEL) / 2, freedom)
    return (low, high) if np.isfinite([low, high]).all() else None
