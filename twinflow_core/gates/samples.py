"""Per-image results as the statistics need them: correct images and all images, summed by prompt.

Prompts are the unit of the bootstrap: images of one prompt resemble each other, so they are kept together.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from twinflow_core.errors import TwinflowError

SCORE_COLUMNS = ("model", "setting", "task", "slice", "prompt_id", "prompt", "sample", "correct")

_Named = tuple[str, str, str]

ImageSet = tuple[str, str]
"""A model ("reference", "candidate", "served") and its setting ("nfe1", .., "many")."""


@dataclass(frozen=True, eq=False)
class PromptScores:
    """What one model made of every prompt at one setting; prompts stand in the order of their ids.

    Args:
        prompt_ids, prompts, tasks, slices: P texts each; a slice is a finer group, across tasks.
        correct: float64 [P], the sum of the prompt's images' correctness; NaN where an image has none.
        images: float64 [P], how many images the prompt has, at least 1.
    """

    prompt_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    tasks: tuple[str, ...]
    slices: tuple[str, ...]
    correct: NDArray[np.float64]
    images: NDArray[np.float64]

    @property
    def design(self) -> tuple[tuple[str, ...], tuple[str, ...], bytes]:
        """What two models must share to be compared in pairs: prompts, tasks and images a prompt."""
        return self.prompt_ids, self.tasks, self.images.tobytes()

    def restricted(self, prompt_ids: Collection[str]) -> PromptScores:
        """These prompts alone, as far as they are among this set's."""
        wanted = set(prompt_ids)
        return self._rows([row for row, each in enumerate(self.prompt_ids) if each in wanted])

    def grouped(self, names: Collection[str], task: str | None = None) -> PromptScores:
        """The prompts of some tasks or some slices (`names`), and of no other, with the groups as tasks.

        Args:
            names: all of them tasks, or all of them slices.
            task: only prompts of this task.
        """
        groups = self.tasks if set(names) <= set(self.tasks) else self.slices
        rows = [
            row
            for row, group in enumerate(groups)
            if group in names and (task is None or self.tasks[row] == task)
        ]
        return replace(self._rows(rows), tasks=tuple(groups[row] for row in rows))

    def _rows(self, rows: Sequence[int]) -> PromptScores:
        return PromptScores(
            prompt_ids=tuple(self.prompt_ids[row] for row in rows),
            prompts=tuple(self.prompts[row] for row in rows),
            tasks=tuple(self.tasks[row] for row in rows),
            slices=tuple(self.slices[row] for row in rows),
            correct=self.correct[list(rows)],
            images=self.images[list(rows)],
        )

    @property
    def scored(self) -> bool:
        """Whether the scorer judges single images; the distribution scorer does not."""
        return not bool(np.isnan(self.correct).all())


def read_scores(path: Path) -> dict[ImageSet, PromptScores]:
    """The scores in a samples.parquet, without its images.

    Raises:
        TwinflowError: the file is missing, unreadable or not as `prompt_scores` needs it.
    """
    try:
        table = pq.read_table(path, columns=list(SCORE_COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise TwinflowError(
            "The per-image results cannot be read.",
            where=f"{path}: {error}",
            fix="Run the evaluate stage again.",
        ) from None
    return prompt_scores(table, where=str(path))


def prompt_scores(table: pa.Table, where: str = "samples") -> dict[ImageSet, PromptScores]:
    """Sum per-image results by model, setting and prompt. The order of rows does not matter.

    Raises:
        TwinflowError: an image stands there twice, or a prompt in two tasks or with two texts.
    """
    columns = [table.column(name).to_pylist() for name in SCORE_COLUMNS]
    grouped: dict[ImageSet, dict[str, tuple[_Named, dict[int, float]]]] = {}
    for model, setting, task, group, prompt_id, prompt, sample, correct in zip(*columns, strict=True):
        by_prompt = grouped.setdefault((model, setting), {})
        named = (task, group, prompt)
        known, images = by_prompt.setdefault(prompt_id, (named, {}))
        if known != named:
            raise _inconsistent(f"prompt {prompt_id} has two tasks, two slices or two texts", where)
        if sample in images:
            raise _inconsistent(
                f"image {prompt_id}/{sample} of {model} at {setting} stands there twice", where
            )
        judged = correct is not None and math.isfinite(correct)
        images[sample] = float(correct) if judged else math.nan
    return {key: _summed(by_prompt) for key, by_prompt in grouped.items()}


def at_size(scores: Mapping[ImageSet, PromptScores], size: str) -> dict[ImageSet, PromptScores]:
    """The scores of an evaluation at another size than the square, under settings that say so: `nfe1@64x32`."""
    return {(model, f"{setting}@{size}"): each for (model, setting), each in scores.items()}


def as_candidate(
    scores: Mapping[ImageSet, PromptScores], where: str = "samples"
) -> dict[ImageSet, PromptScores]:
    """The scores of a file that holds one model alone, under the keys of a candidate: so a champion is read.

    Raises:
        TwinflowError: the file holds several models, so that it is unclear which one is meant.
    """
    models = sorted({model for model, _ in scores})
    if len(models) > 1:
        raise _inconsistent(f"they hold {' and '.join(models)} where one model was expected", where)
    return {("candidate", setting): each for (_, setting), each in scores.items()}


def prompts_hash(*sets: Mapping[ImageSet, PromptScores]) -> str:
    """SHA-256 of the prompts that were evaluated: ids, texts, tasks, images a prompt."""
    rows = {
        (prompt_id, prompt, task, int(images))
        for scores in sets
        for each in scores.values()
        for prompt_id, prompt, task, images in zip(
            each.prompt_ids, each.prompts, each.tasks, each.images, strict=True
        )
    }
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()


def _summed(by_prompt: dict[str, tuple[_Named, dict[int, float]]]) -> PromptScores:
    ids = tuple(sorted(by_prompt))
    named = [by_prompt[prompt_id][0] for prompt_id in ids]
    images = [by_prompt[prompt_id][1] for prompt_id in ids]
    return PromptScores(
        prompt_ids=ids,
        prompts=tuple(prompt for _, _, prompt in named),
        tasks=tuple(task for task, _, _ in named),
        slices=tuple(group for _, group, _ in named),
        correct=np.array([sum(each[sample] for sample in sorted(each)) for each in images]),
        images=np.array([float(len(each)) for each in images]),
    )


def _inconsistent(what: str, where: str) -> TwinflowError:
    return TwinflowError(
        f"The per-image results contradict themselves: {what}.",
        where=where,
        fix="Run the evaluate stage again; if it happens again, report it.",
    )
