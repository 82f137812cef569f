"""A network of its own for the velocity of the fakes; thrown away after the training."""

from __future__ import annotations

from twinflow_core.backbones.lora import add_lora, remove_lora
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.finetune_params import FinetuneParams


def make_fake_score(base: Velocity, options: FinetuneParams) -> Velocity:
    """The second network where one process trains alone: it shares what it does not train with the base."""
    lora = options.fake_score.weights == "lora"
    return as_fake_score(base.copy() if lora else base.independent_copy(), options)


def as_fake_score(base: Velocity, options: FinetuneParams) -> Velocity:
    """A copy of the base, changed in place: all of it is trained, or low-rank weights on it."""
    remove_lora(base.transformer)
    if options.fake_score.weights == "lora":
        add_lora(base.transformer, options.fake_score.rank, options.seed, base.lora_layers)
    else:
        base.transformer.requires_grad_(True)
    # It is asked at r = None, where the target time does nothing.
    base.target_time.requires_grad_(False)
    return base.train()
