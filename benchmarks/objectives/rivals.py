"""The trainings that are compared: five objectives, and TwinFlow with one option changed; all else is params.yaml's."""

from __future__ import annotations

from typing import Any

from twinflow_core.finetune_params import FinetuneParams

# What params.yaml says is for TwinFlow: less momentum for its game of two players, and nearly all rows for its roles.
USUAL_BETAS = [0.9, 0.95]
RIVALS: dict[str, dict[str, Any]] = {
    "twinflow": {},
    "rcgm": {"shares": {"one_step": 1, "near": 1, "any": 2}, "betas": USUAL_BETAS},
    "flow_matching": {"shares": {"near": 1}, "betas": USUAL_BETAS},
    "meanflow": {"shares": {"one_step": 1, "near": 1, "any": 2}, "betas": USUAL_BETAS},
    "vsd": {"shares": {"one_step": 1, "fake": 1.5}, "betas": USUAL_BETAS},
}

EQUAL_ROLES = {"shares": {"one_step": 1, "near": 1, "any": 1, "fake": 1}}
CHANGES: dict[str, dict[str, Any]] = {
    "twinflow": {},
    "no-frozen-base": {"real_velocity": "online", "fake_velocity": "online"},
    "one-network": {"fake_velocity": "online"},
    "recursive-one-step": {"one_step_target": "recursive"},
    "clamped-rectification": {"rectify_target": "clamped"},
    "usual-momentum": {"betas": USUAL_BETAS},
    "guidance-2": {"guidance": 2.0},
    "order-1": {"order": 1},
    "order-3": {"order": 3},
    "no-average": {"ema_decay": 0.0},
    "long-average": {"ema_decay": 0.999},
    "half-rectification": {"rectify_weight": 1.0},
    "light-fakes": {"adversarial_weight": 1.0},
    "equal-roles": EQUAL_ROLES,
    "equal-roles-near-as-flow-matching": {**EQUAL_ROLES, "near_target": "velocity"},
    "equal-roles-shared-fakes": {**EQUAL_ROLES, "fakes": "shared"},
}

COMPARISONS = {"objectives": RIVALS, "options": CHANGES}


def rival_options(name: str, seed: int, shared: FinetuneParams, overrides: dict[str, Any]) -> FinetuneParams:
    """The options of one training.

    The learning rate stays constant after its warm-up, so that every step of a training is a fair place to stop.

    Args:
        name: of the objective, or of the option of TwinFlow.
        seed: of every draw.
        shared: params.yaml's finetune section.
        overrides: values for all objectives, from the command line.
    """
    own = (
        {"objective": name, **RIVALS[name]} if name in RIVALS else {"objective": "twinflow", **CHANGES[name]}
    )
    values = {**shared.model_dump(), "decay_steps": 0, "validate_every": 0, **own, **overrides}
    return FinetuneParams.model_validate({**values, "seed": seed})
