"""How good a base is: the six-task score on held-out prompts, through the stock pipeline."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline

from twinflow_core.data.shapes_scene import CANVAS
from twinflow_core.data.shapes_world import Metadata, evaluation_prompts
from twinflow_core.evaluation.geneval import Score, aggregate, evaluate
from twinflow_core.evaluation.shapes_detector import ShapesDetector

_BATCH = 128


@dataclass(frozen=True)
class BaseScore:
    """The score over all prompts, and over those of each slice (`seen pair`, `unseen pair`)."""

    all: Score
    slices: dict[str, Score]

    def as_dict(self) -> dict[str, Any]:
        """The same for a record: overall and tasks, in all and by slice, to three places."""
        named = {"all": self.all, **self.slices}
        return {
            name: {
                "score": round(score.overall, 3),
                "tasks": {k: round(v, 3) for k, v in score.tasks.items()},
            }
            for name, score in named.items()
        }


def generate(
    pipeline: StableDiffusion3Pipeline, prompts: list[str], steps: int, guidance: float, seed: int
) -> np.ndarray:
    """One picture a prompt, uint8 [N, 32, 32, 3]; the noise depends on the seed and the prompt's place."""
    pipeline.set_progress_bar_config(disable=True)
    parts = []
    for start in range(0, len(prompts), _BATCH):
        chunk = prompts[start : start + _BATCH]
        images = pipeline(
            prompt=chunk,
            num_inference_steps=steps,
            guidance_scale=guidance,
            height=CANVAS,
            width=CANVAS,
            max_sequence_length=1,
            generator=[
                torch.Generator().manual_seed(seed * 1_000_003 + start + i) for i in range(len(chunk))
            ],
            output_type="np",
        ).images
        parts.append(np.rint(images * 255).astype(np.uint8))
    return np.concatenate(parts)


def score_base(
    pipeline: StableDiffusion3Pipeline,
    count_per_task: int,
    steps: int,
    guidance: float,
    each: int = 1,
    seed: int = 0,
) -> BaseScore:
    """Draw held-out prompts and judge the pictures.

    Args:
        pipeline: the base.
        count_per_task: held-out prompts of each task, as far as there are.
        steps: of the sampler; with guidance each step costs two evaluations.
        guidance: scale; 1 for none.
        each: pictures of each prompt; GenEval draws four.
        seed: of the prompts and the noise.
    """
    prompts = [record for record in evaluation_prompts(count_per_task, seed) for _ in range(each)]
    images = generate(pipeline, [record["prompt"] for record in prompts], steps, guidance, seed)
    return judge(prompts, images)


def judge(prompts: list[Metadata], images: np.ndarray) -> BaseScore:
    """The score of pictures, one a prompt."""
    detector = ShapesDetector()
    results = [
        (record, evaluate(detector.detect(image), record).correct)
        for record, image in zip(prompts, images, strict=True)
    ]
    by_slice: dict[str, list[tuple[Metadata, bool]]] = defaultdict(list)
    for record, correct in results:
        by_slice[record["slice"]].append((record, correct))
    return BaseScore(aggregate(results), {name: aggregate(part) for name, part in sorted(by_slice.items())})
