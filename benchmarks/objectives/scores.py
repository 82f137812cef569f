"""Score, diversity and distribution of a network at 1, 2, 4 and 16 evaluations, by jumps and by Euler steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.evaluation.generation import few_step_sampler, generate_images, many_step_sampler
from twinflow_core.evaluation.prompts import prompts_for, resolve_scorer
from twinflow_core.evaluation.scoring import (
    DistributionScorer,
    judge_images,
    make_scorer,
    setting_metrics,
)
from twinflow_core.params import Params

NFE = (1, 2, 4, 16)


def score_network(
    work: Path, params: Params, velocity: Velocity, settings: dict[str, Any], backbone: Backbone | None = None
) -> dict[str, dict[str, Any]]:
    """By number of evaluations, then by sampler: score, tasks, diversity, distribution.

    `jumps` is few-step sampling with F(x_t, t, 0); `euler` follows F(x_t, t, t) without guidance, which is trained in.

    Args:
        work: holds data/prepared and models/base.
        params: whose evaluate section holds prompts, images a prompt, seed.
        velocity: the network; moved to the CPU.
        settings: `nfe`, the numbers of evaluations.
        backbone: whose network takes these weights; that of models/base if None.
    """
    prepared = work / "data/prepared"
    scorer = make_scorer(resolve_scorer(params.evaluate, prepared), prepared, params.data.square)
    distribution = DistributionScorer.from_prepared(prepared, params.data.square)
    prompts = prompts_for(scorer.name, params.evaluate, prepared)
    backbone = backbone or load_backbone(work / "models/base")
    backbone.velocity.load_state_dict(velocity.to("cpu").state_dict())
    results: dict[str, dict[str, Any]] = {}
    for nfe in settings["nfe"]:
        samplers = {
            "jumps": (few_step_sampler(backbone), nfe),
            "euler": (many_step_sampler(backbone, nfe, guidance=1), 1),
        }
        for name, (sampler, noises) in samplers.items():
            images: np.ndarray = generate_images(
                backbone,
                sampler,
                prompts,
                evaluations=noises,
                images_per_prompt=params.evaluate.images_per_prompt,
                seed=params.evaluate.seed,
                batch_size=params.evaluate.batch_size,
                label=f"{name}, {nfe} evaluations",
            )
            samples = judge_images(scorer, "candidate", f"nfe{nfe}", prompts, images)
            metrics = setting_metrics(scorer, samples)
            metrics["distribution"] = distribution.score(samples)[0]
            results.setdefault(str(nfe), {})[name] = metrics
    return results
