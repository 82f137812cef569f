"""Scores of one model in one setting, by either scorer, in the keys of `metrics.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from twinflow_core.data.decode import decode_rgb, fit
from twinflow_core.data.shards import read_rows
from twinflow_core.errors import TwinflowError
from twinflow_core.evaluation.distribution import SCALES, distribution_score
from twinflow_core.evaluation.diversity import diversity
from twinflow_core.evaluation.geneval import aggregate, evaluate
from twinflow_core.evaluation.prompts import CAPTION_TASK, Prompt, ScorerName
from twinflow_core.evaluation.samples import Sample, png_bytes
from twinflow_core.evaluation.shapes_detector import ShapesDetector
from twinflow_core.image_size import ImageSize


class Scorer(Protocol):
    """Judges single images where it can, and always a set of them."""

    name: ScorerName

    def judge(self, prompt: Prompt, pixels: np.ndarray) -> tuple[float, str]:
        """(1 or 0, why not) of an image uint8 [H, W, 3], or (NaN, "") if single images are not judged."""
        ...

    def score(self, samples: Sequence[Sample]) -> tuple[float, dict[str, float]]:
        """The score of a set in [0, 1], and that of each task."""
        ...


class ShapesScorer:
    """GenEval's six tasks with the rule-based detector of the shapes world."""

    name: ScorerName = "shapes"

    def __init__(self) -> None:
        self._detector = ShapesDetector()

    def judge(self, prompt: Prompt, pixels: np.ndarray) -> tuple[float, str]:
        """GenEval's verdict on one image."""
        verdict = evaluate(self._detector.detect(pixels), prompt.record)
        return float(verdict.correct), verdict.reason

    def score(self, samples: Sequence[Sample]) -> tuple[float, dict[str, float]]:
        """The unweighted mean of the tasks' means."""
        total = aggregate(({"tag": s.task, "prompt": s.prompt}, s.correct == 1) for s in samples)
        return total.overall, total.tasks


class DistributionScorer:
    """Distance to held-out images (see `distribution`)."""

    name: ScorerName = "distribution"

    def __init__(self, real: np.ndarray) -> None:
        self._real = real

    @classmethod
    def from_prepared(cls, prepared: Path, size: ImageSize) -> DistributionScorer:
        """The validation split, every image cropped to this size, as the set to be close to.

        Raises:
            TwinflowError: images of this size cannot be compared.
        """
        if size.width % max(SCALES) or size.height % max(SCALES):
            raise TwinflowError(
                f"The distribution scorer compares images whose sides are multiples of {max(SCALES)} pixels, "
                f"not {size}.",
                where="params.yaml: data.resolution, export.sizes",
                fix="Choose such sides.",
            )
        rows = read_rows(prepared, "validation")
        return cls(np.stack([fit(decode_rgb(row.image), size.width, size.height) for row in rows]))

    def judge(self, prompt: Prompt, pixels: np.ndarray) -> tuple[float, str]:
        """Single images are not judged."""
        return float("nan"), ""

    def score(self, samples: Sequence[Sample]) -> tuple[float, dict[str, float]]:
        """One score for the whole set."""
        value = distribution_score(np.stack([sample.pixels for sample in samples]), self._real)
        return value, {CAPTION_TASK: value}


def make_scorer(name: ScorerName, prepared: Path, size: ImageSize) -> Scorer:
    """The scorer of that name, ready to judge images of this size."""
    return ShapesScorer() if name == "shapes" else DistributionScorer.from_prepared(prepared, size)


def judge_images(
    scorer: Scorer, model: str, setting: str, prompts: Sequence[Prompt], images: np.ndarray
) -> list[Sample]:
    """Samples of uint8 images [prompts x images a prompt, H, W, 3], all images of a prompt in a row."""
    each = len(images) // len(prompts)
    samples = []
    for i, pixels in enumerate(images):
        prompt = prompts[i // each]
        correct, reason = scorer.judge(prompt, pixels)
        place = (prompt.task, prompt.slice, prompt.id, prompt.text, i % each)
        samples.append(Sample(model, setting, *place, correct, reason, png_bytes(pixels)))
    return samples


def setting_metrics(scorer: Scorer, samples: Sequence[Sample]) -> dict[str, Any]:
    """Score, tasks and diversity of one model in one setting."""
    score, tasks = scorer.score(samples)
    return {"score": score, "tasks": tasks, "diversity": diversity(samples)}


def ratios(reference: dict[str, Any], candidate: dict[str, Any]) -> dict[str, float]:
    """The candidate's few-step score and diversity over the reference's at many steps; NaN over zero or None."""
    return {
        f"{quantity}_{setting}": _ratio(metrics[quantity], reference[quantity])
        for setting, metrics in candidate.items()
        if setting != "many"
        for quantity in ("score", "diversity")
    }


def _ratio(value: float, reference: float | None) -> float:
    return value / reference if reference is not None and reference > 0 else float("nan")
