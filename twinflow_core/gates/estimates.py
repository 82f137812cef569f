"""How a metric comes out of per-image results, and how far it moves when the prompts are drawn again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from twinflow_core.gates.samples import ImageSet, PromptScores
from twinflow_core.gates.statistics import (
    Array,
    TooFewPromptsError,
    degrees_of_freedom,
    resampled_task_means,
    task_means,
)


@dataclass(frozen=True)
class Estimand:
    """A metric as a statistic of images: the score of one set, or its ratio to or difference from another's.

    Args:
        of: the images that are scored.
        task: one task, or None for the mean over all tasks.
        contrast: how `of` is held against `against`.
        against: the other images, where there is a contrast.
    """

    of: ImageSet
    task: str | None = None
    contrast: Literal["none", "ratio", "difference"] = "none"
    against: ImageSet | None = None


@dataclass(frozen=True, eq=False)
class Estimate:
    """A metric's value out of per-image results, and how far it moves.

    Args:
        value: the metric.
        draws: [R], its bootstrap draws.
        parts: [R, T], what each task adds to how the draws vary; they vary as the mean over tasks does.
        task_prompts: [T], the prompts of each task.
        images: how many images it rests on.
    """

    value: float
    draws: Array
    parts: Array
    task_prompts: Array
    images: int

    @property
    def prompts(self) -> int:
        """How many prompts it rests on."""
        return int(self.task_prompts.sum())

    @property
    def freedom(self) -> float:
        """The degrees of freedom behind the spread of the draws; see `degrees_of_freedom`."""
        return degrees_of_freedom(self.parts, self.task_prompts)

    def minus(self, other: Estimate) -> Estimate:
        """The difference to an estimate on the same prompts: the same draws serve both, so it is paired."""
        return replace(
            self,
            value=self.value - other.value,
            draws=self.draws - other.draws,
            parts=self.parts - other.parts,
        )

    def over(self, other: Estimate) -> Estimate:
        """The ratio to an estimate on the same prompts; its parts are those of the ratio made linear."""
        value = self.value / other.value
        parts = (self.parts - value * other.parts) / other.value
        return replace(self, value=value, draws=self.draws / other.draws, parts=parts)


class NoEstimateError(Exception):
    """Why per-image results give no interval for a metric; the text follows "no interval: "."""


class NoSpreadError(NoEstimateError):
    """The images are there and judged, but do not show how far the metric moves."""


def estimand_of(metric: str, served_at: str = "nfe1") -> Estimand | None:
    """What a metric path means in terms of images; None where single images do not add up to it.

    Args:
        metric: the path.
        served_at: the setting that the exported package drew at.
    """
    if found := re.fullmatch(r"sizes\.(\w+)\.(.+)", metric):
        return _at_size(estimand_of(found[2]), found[1])
    if metric == "serving.score":
        return Estimand(of=("served", served_at))
    if metric == "serving.score_difference":
        return Estimand(of=("served", served_at), contrast="difference", against=("candidate", served_at))
    if found := re.fullmatch(r"ratio\.score_(nfe\d+)", metric):
        return Estimand(of=("candidate", found[1]), contrast="ratio", against=("reference", "many"))
    if found := re.fullmatch(r"(candidate|reference)(?:\.(nfe\d+|many))?\.(?:score|tasks\.(\w+))", metric):
        return Estimand(of=(found[1], found[2] or "many"), task=found[3])
    return None


def few_step_setting(metric: str) -> str | None:
    """The candidate's few-step setting at the square whose images alone make a metric: only of those more are drawn."""
    estimand = estimand_of(metric)
    if estimand is None or estimand.contrast != "none" or estimand.of[0] != "candidate":
        return None
    return estimand.of[1] if re.fullmatch(r"nfe\d+", estimand.of[1]) else None


def _at_size(estimand: Estimand | None, size: str) -> Estimand | None:
    """The same of images of another size, see `samples.at_size`."""
    if estimand is None:
        return None
    (model, setting), against = estimand.of, estimand.against
    return replace(
        estimand,
        of=(model, f"{setting}@{size}"),
        against=against and (against[0], f"{against[1]}@{size}"),
    )


class Resampling:
    """Bootstrap draws of scores. Sets of images with the same prompts get the same draws of prompts.

    Args:
        resamples: draws behind every estimate.
        seed: seed of the draws.
    """

    def __init__(self, resamples: int, seed: int) -> None:
        self.resamples = resamples
        self.seed = seed
        # Beside its draws stands the set itself, so that its id cannot come to name another.
        self._known: dict[int, tuple[PromptScores, Array]] = {}

    def score(self, scores: PromptScores, task: str | None) -> Estimate:
        """The score of one set of images, or of one of its tasks.

        Raises:
            NoEstimateError: single images are not scored, the task is not among them, or has one prompt.
        """
        if not scores.scored:
            raise NoEstimateError("this scorer does not judge single images")
        tasks = sorted(set(scores.tasks))
        if task is not None and task not in tasks:
            raise NoEstimateError(f"no image belongs to task {task}")
        draws = self._task_draws(scores)
        rows = [tasks.index(task)] if task is not None else list(range(len(tasks)))
        means = task_means(scores.tasks, scores.correct[:, None], scores.images[:, None])[:, 0]
        members = [each in {tasks[row] for row in rows} for each in scores.tasks]
        return Estimate(
            value=float(means[rows].mean()),
            draws=draws[:, rows].mean(1),
            parts=draws[:, rows],
            task_prompts=np.array([scores.tasks.count(tasks[row]) for row in rows]),
            images=int(scores.images[members].sum()),
        )

    def difference(self, first: PromptScores, second: PromptScores, task: str | None) -> Estimate:
        """The first score minus the second, on the same prompts.

        Raises:
            NoEstimateError: as `score`, or the prompts or the images a prompt are not the same.
        """
        one, other = self._pair(first, second, task)
        return one.minus(other)

    def ratio(self, first: PromptScores, second: PromptScores, task: str | None) -> Estimate:
        """The first score over the second, on the same prompts.

        Raises:
            NoEstimateError: as `difference`, or the second score is 0 in the data or in a draw.
        """
        one, other = self._pair(first, second, task)
        if other.value == 0 or (other.draws == 0).any():
            raise NoSpreadError("the score it is divided by is, or may be, 0")
        return one.over(other)

    def of(self, estimand: Estimand, scores: Mapping[ImageSet, PromptScores]) -> Estimate:
        """The estimate of a metric.

        Raises:
            NoEstimateError: the images are not there, or as the methods above.
        """
        first = _found(scores, estimand.of)
        if estimand.against is None:
            return self.score(first, estimand.task)
        second = _found(scores, estimand.against)
        if estimand.contrast == "ratio":
            return self.ratio(first, second, estimand.task)
        return self.difference(first, second.restricted(first.prompt_ids), estimand.task)

    def of_slices(
        self, estimand: Estimand, slices: tuple[str, ...], scores: Mapping[ImageSet, PromptScores]
    ) -> tuple[dict[str, Estimate], Estimate]:
        """The estimate of a metric on each of some groups of prompts alone, and of their unweighted mean.

        Raises:
            NoEstimateError: as `of`, or no image belongs to a slice.
        """
        grouped = {}
        for key in filter(None, (estimand.of, estimand.against)):
            grouped[key] = _found(scores, key).grouped(slices, estimand.task)
            missing = set(slices) - set(grouped[key].tasks)
            if missing:
                raise NoEstimateError(f"no image of {key[0]} at {key[1]} belongs to {sorted(missing)[0]}")
        whole = replace(estimand, task=None)
        each = {name: self.of(replace(whole, task=name), grouped) for name in slices}
        return each, self.of(whole, grouped)

    def _task_draws(self, scores: PromptScores) -> Array:
        """Resampled means of the tasks, [R, T]; computed once for a set of images."""
        if id(scores) not in self._known:
            correct, images = scores.correct[:, None], scores.images[:, None]
            try:
                means = resampled_task_means(scores.tasks, correct, images, self.resamples, self.seed)
            except TooFewPromptsError as error:
                raise NoSpreadError(f"{error}, raise evaluate.prompts_per_task") from None
            self._known[id(scores)] = (scores, means[:, :, 0])
        return self._known[id(scores)][1]

    def _pair(self, first: PromptScores, second: PromptScores, task: str | None) -> tuple[Estimate, Estimate]:
        if first.design != second.design:
            raise NoEstimateError("the two models were not given the same prompts and images a prompt")
        return self.score(first, task), self.score(second, task)


def _found(scores: Mapping[ImageSet, PromptScores], key: ImageSet) -> PromptScores:
    if key not in scores:
        raise NoEstimateError(f"there are no images of {key[0]} at {key[1]}")
    return scores[key]
