"""The objectives that are compared, each with the roles that suit it; all else is params.yaml's."""

from __future__ import annotations

from typing import Any

from twinflow_core.finetune_params import FinetuneParams

RIVALS: dict[str, dict[str, Any]] = {
    "twinflow": {},
    "rcgm": {},
    "flow_matching": {"shares": {"near": 1}},
    "meanflow": {"shares": {"one_step": 1, "near": 1, "any": 2}},
    "vsd": {"shares": {"one_step": 1, "fake": 3}},
}


def rival_options(name: str, seed: int, shared: FinetuneParams, overrides: dict[str, Any]) -> FinetuneParams:
    """The options of one training.

    The learning rate stays constant after its warm-up, so that every step of a training is a fair place to stop.

    Args:
        name: of the objective.
        seed: of every draw.
        shared: params.yaml's finetune section.
        overrides: values for all objectives, from the command line.
    """
    values = {**shared.model_dump(), "decay_steps": 0, "validate_every": 0, **RIVALS[name], **overrides}
    return FinetuneParams.model_validate({**values, "objective": name, "seed": seed})
