"""A network of its own for the velocity of the fakes; thrown away after the training."""

from __future__ import annotations

from twinflow_core.backbones.lora import add_lora, remove_lora
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.finetune_params import FinetuneParams


def make_fake_score(base: Velocity, options: FinetuneParams) -> Velocity:
    """A network that starts as the base: with low-rank weights on the base's own, or a full copy."""
    if options.fake_score.weights == "lora":
        fake = base.copy()
        remove_lora(fake.transformer)
        add_lora(fake.transformer, options.fake_score.rank, options.seed, fake.lora_layers)
    else:
        fake = base.independent_copy()
        fake.transformer.requires_grad_(True)
    # It is asked at r = None, where the target time does nothing.
    fake.target_time.requires_grad_(False)
    return fake.train()
