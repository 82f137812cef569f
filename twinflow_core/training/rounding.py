"""Rounding to bfloat16 by chance: right on average, where rounding to the nearest loses every small update.

A weight near 1 in bfloat16 has neighbours 0.004 to 0.008 away. Updates far below that never move it when each sum
is rounded to the nearest; rounded up with the probability that its remainder gives, they move it as often as they
should.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A bfloat16 is the upper half of a float32.
LOWER_BITS = 16
UPPER_HALF = -(1 << LOWER_BITS)


def stochastic_bfloat16(values: Tensor, generator: torch.Generator) -> Tensor:
    """Each value at one of its two bfloat16 neighbours, with the value as the mean.

    Args:
        values: float32, any shape; those that bfloat16 holds, infinities among them, stay what they are.
        generator: of the same device.

    Returns:
        bfloat16, same shape.
    """
    chance = torch.randint(
        1 << LOWER_BITS, values.shape, generator=generator, dtype=torch.int32, device=values.device
    )
    # A carry out of the lower half is the step to the neighbour farther from zero, across powers of two as well.
    bits = values.contiguous().view(torch.int32).add(chance).bitwise_and_(UPPER_HALF)
    return bits.view(torch.float32).to(torch.bfloat16)
