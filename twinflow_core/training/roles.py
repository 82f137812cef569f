"""Which rows of a batch play which part of the objective, by a schedule that works for any batch size.

The authors round shares to row counts, which leaves some batch sizes without a part (6 rows: no fakes) and
needs at least four rows. Here the rows of all steps form one endless sequence, and row i takes the role in
whose share the i-th number of the base-2 van der Corput sequence falls: four equal roles alternate exactly,
one row a step works, and any shares are met to within a few rows after any number of steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

Role = Literal["one_step", "near", "any", "fake"]
ROLES: tuple[Role, ...] = get_args(Role)
BITS = 48


@dataclass(frozen=True)
class RoleCounts:
    """Rows of one batch by role; the batch is laid out in this order."""

    one_step: int
    near: int
    any: int
    fake: int

    @property
    def total(self) -> int:
        """Rows of the batch."""
        return self.one_step + self.near + self.any + self.fake


def radical_inverse(i: int) -> float:
    """The i-th van der Corput number in base 2, in [0, 1): the bits of i mirrored at the binary point."""
    return int(f"{i:0{BITS}b}"[::-1], 2) / (1 << BITS)


def role_of_row(shares: Mapping[Role, float], row: int) -> Role:
    """The role of a row of the endless sequence.

    Args:
        shares: weight of each role, not negative; they need not add up to one.
        row: step times batch size plus the position in the batch.

    Raises:
        ValueError: no role has a positive share.
    """
    bounds = list(accumulate(shares.get(role, 0.0) for role in ROLES))
    if bounds[-1] <= 0:
        raise ValueError("at least one role needs a positive share")
    point = radical_inverse(row) * bounds[-1]
    return next(role for role, bound in zip(ROLES, bounds, strict=True) if point < bound)


def role_counts(shares: Mapping[Role, float], step: int, batch_size: int) -> RoleCounts:
    """How many rows of this step's batch have each role (see `role_of_row`)."""
    first = step * batch_size
    counts = Counter(role_of_row(shares, row) for row in range(first, first + batch_size))
    return RoleCounts(**{role: counts[role] for role in ROLES})
