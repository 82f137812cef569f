"""Per-image results as the statistics need them: correct images and all images, summed by prompt.

Prompts are the unit of the bootstrap: images of one prompt resemble each other, so they are kept together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from twinflow_core.errors import TwinflowError

SCORE_COLUMNS = ("model", "setting", "task", "prompt_id", "prompt", "sample", "correct")

ImageSet = tuple[str, str]
"""A model ("reference", "candidate", "served") and its setting ("nfe1", .., "many")."""


@dataclass(frozen=True, eq=False)
class PromptScores:
    """What one model made of every prompt at one setting; prompts stand in the order of their ids.

    Args:
        prompt_ids, prompts, tasks: P texts each.
        correct: float64 [P], the sum of the prompt's images' correctness; NaN where an image has none.
        images: float64 [P], how many images the prompt has, at least 1.
    """

    prompt_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    tasks: tuple[str, ...]
    correct: NDArray[np.float64]
    images: NDArray[np.float64]

    @property
    def design(self) -> tuple[tuple[str, ...], tuple[str, ...], bytes]:
        """What two models must share to be compared in pairs: prompts, tasks and images a prompt."""
        return self.prompt_ids, self.tasks, self.images.tobytes()

    def restricted(self, prompt_ids: Collection[str]) -> PromptScores:
        """These prompts alone, as far as they are among this set's."""
        wanted = set(prompt_ids)
        rows = [row for row, prompt_id in enumerate(self.prompt_ids) if prompt_id in wanted]
        return PromptScores(
            prompt_ids=tuple(self.prompt_ids[row] for row in rows),
            prompts=tuple(self.prompts[row] for row in rows),
            tasks=tuple(self.tasks[row] for row in rows),
            correct=self.correct[rows],
            images=self.images[rows],
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
    grouped: dict[ImageSet, dict[str, tuple[str, str, dict[int, float]]]] = {}
    for model, setting, task, prompt_id, prompt, sample, correct in zip(*columns, strict=True):
        by_prompt = grouped.setdefault((model, setting), {})
        known_task, known_prompt, images = by_prompt.setdefault(prompt_id, (task, prompt, {}))
        if (known_task, known_prompt) != (task, prompt):
            raise _inconsistent(f"prompt {prompt_id} has two tasks or two texts", where)
        if sample in images:
            raise _inconsistent(
                f"image {prompt_id}/{sample} of {model} at {setting} stands there twice", where
            )
        images[sample] = float("nan") if correct is None else float(correct)
    return {key: _summed(by_prompt) for key, by_prompt in grouped.items()}


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


def prompts_hash(scores: Mapping[ImageSet, PromptScores]) -> str:
    """SHA-256 of the prompts that were evaluated: ids, texts, tasks, images a prompt."""
    rows = {
        (prompt_id, prompt, task, int(images))
        for each in scores.values()
        for prompt_id, prompt, task, images in zip(
            each.prompt_ids, each.prompts, each.tasks, each.images, strict=True
        )
    }
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()


def _summed(by_prompt: dict[str, tuple[str, str, dict[int, float]]]) -> PromptScores:
    ids = tuple(sorted(by_prompt))
    rows = [by_prompt[prompt_id] for prompt_id in ids]
    return PromptScores(
        prompt_ids=ids,
        prompts=tuple(prompt for _, prompt, _ in rows),
        tasks=tuple(task for task, _, _ in rows),
        correct=np.array([sum(images[sample] for sample in sorted(images)) for _, _, images in rows]),
        images=np.array([float(len(images)) for _, _, images in rows]),
    )


def _inconsistent(what: str, where: str) -> TwinflowError:
    return TwinflowError(
        f"The per-image results contradict themselves: {what}.",
        where=where,
        fix="Run the evaluate stage again; if it happens again, report it.",
    )
