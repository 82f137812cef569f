"""Which bucket a step's global batch comes from: all of its rows have one shape.

Buckets take turns in proportion to their rows. Step i takes the bucket in whose share the i-th multiple of the golden
ratio falls, from a start that the seed gives: shares are met to within a few batches after any number of steps. That
sequence has nothing to do with the one that deals the roles (see `roles`), so no bucket is short of a role.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from twinflow_core.errors import TwinflowError
from twinflow_core.training.draws import batch_rows, uniform
from twinflow_core.training.encoded import Bucket, EncodedData

GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Turn:
    """A bucket and how many batches it gave before."""

    bucket: Bucket
    number: int

    def rows(self, seed: int, batch_size: int) -> Tensor:
        """The dataset rows of the batch, int64 [batch_size]: see `batch_rows`, an epoch being the bucket's own."""
        return self.bucket.rows.start + batch_rows(seed, self.number, batch_size, len(self.bucket.rows))


class BucketSchedule:
    """The turns of a whole training. They depend on the seed and the buckets' rows alone.

    Args:
        buckets: at least one; one alone has every turn.
        seed: the run's seed.
        steps: how many turns.
    """

    def __init__(self, buckets: tuple[Bucket, ...], seed: int, steps: int) -> None:
        ends = np.cumsum([len(bucket.rows) for bucket in buckets])
        start = float(uniform(seed, 0, "buckets", 1))
        points = (start + GOLDEN * np.arange(steps)) % 1.0
        self._buckets = buckets
        self._chosen = np.searchsorted(ends / ends[-1], points, side="right")
        self._numbers = np.empty(steps, np.int64)
        for index in range(len(buckets)):
            taken = self._chosen == index
            self._numbers[taken] = np.arange(taken.sum())

    def turn(self, step: int) -> Turn:
        """The turn of a 0-based step."""
        return Turn(self._buckets[self._chosen[step]], int(self._numbers[step]))


def require_full_batches(data: EncodedData, batch_size: int) -> None:
    """Refuse buckets so small that one batch would show their rows several times.

    Raises:
        TwinflowError: there are several buckets, and one has fewer rows than a batch.
    """
    if len(data.buckets) == 1:
        return
    for bucket in data.buckets:
        if len(bucket.rows) < batch_size:
            raise TwinflowError(
                f"Bucket {bucket.name} has {len(bucket.rows)} training image(s), fewer than a batch of {batch_size}.",
                where="params.yaml: data.buckets, finetune.batch_size",
                fix="Remove the bucket, so that its images go to the next nearest shape; or add images of that shape, "
                "or lower finetune.batch_size (finetune.accumulation changes no batch).",
            )
