"""Which prompts a model is evaluated on, by the scorer of the data."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from twinflow_core.data.shapes_world import evaluation_prompts as shapes_prompts
from twinflow_core.data.shards import read_rows
from twinflow_core.errors import TwinflowError
from twinflow_core.params import EvaluateParams

ScorerName = Literal["shapes", "distribution"]
CAPTION_TASK = "captions"
TASKS = 6


@dataclass(frozen=True)
class Prompt:
    """One prompt: its id, text, task, slice, and GenEval's record of what must be seen (empty if unknown)."""

    id: str
    text: str
    task: str
    slice: str
    record: dict[str, Any] = field(default_factory=dict)


def resolve_scorer(options: EvaluateParams, prepared: Path) -> ScorerName:
    """`auto` means `shapes` if the validation images say what they show, else `distribution`.

    Raises:
        TwinflowError: `shapes` is asked for data that do not say what they show.
    """
    first = next(read_rows(prepared, "validation"))
    known = "include" in (json.loads(first.metadata) if first.metadata else {})
    if options.scorer == "auto":
        return "shapes" if known else "distribution"
    if options.scorer == "shapes" and not known:
        raise TwinflowError(
            "The shapes scorer cannot judge these data: their images do not say what they show.",
            where="params.yaml: evaluate.scorer",
            fix="Set it to auto or to distribution.",
        )
    return options.scorer


def prompts_for(scorer: ScorerName, options: EvaluateParams, prepared: Path) -> list[Prompt]:
    """The evaluation's prompts: held-out captions of the shapes world, or captions of the validation split.

    Args:
        scorer: decides where prompts come from.
        options: `prompts_per_task` and `seed`. A data set without tasks gets six times as many prompts.
        prepared: data/prepared.
    """
    if scorer == "shapes":
        records = shapes_prompts(options.prompts_per_task, options.seed)
        return [
            Prompt(f"{i:04d}", record["prompt"], record["tag"], record["slice"], record)
            for i, record in enumerate(records)
        ]
    captions = sorted({row.caption for row in read_rows(prepared, "validation")})
    wanted = options.prompts_per_task * TASKS
    order = np.random.default_rng(options.seed).permutation(len(captions))[:wanted]
    return [Prompt(f"{i:04d}", captions[k], CAPTION_TASK, "all") for i, k in enumerate(sorted(order))]
