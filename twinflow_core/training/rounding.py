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


def stochastic_bfloat16(
    values: Tensor, generator: torch.Generator, whole: torch.Size | None = None, first: int = 0
) -> Tensor:
    """Each value at one of its two bfloat16 neighbours, with the value as the mean.

    Args:
        values: float32, any shape; those that bfloat16 holds, infinities among them, stay what they are.
        generator: of the same device.
        whole: the shape of the tensor that the values are rows of, where they are not all of it. The draws are that
            tensor's, so that rows are rounded alike whoever holds them.
        first: the first of these rows.

    Returns:
        bfloat16, same shape.
    """
    shape = values.shape if whole is None else whole
    chance = torch.randint(
        1 << LOWER_BITS, shape, generator=generator, dtype=torch.int32, device=values.device
    )
    if shape != values.shape:
        chance = chance[first : first + len(values)]
    # A carry out of the lower half is the step to the neighbour farther from zero, across powers of two as well.
    bits = values.contiguous().view(torch.int32).add(chance).bitwise_and_(UPPER_HALF)
    return bits.view(torch.float32).to(torch.bfloat16)
