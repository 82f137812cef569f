"""Rows found by their 64-bit hashes, in a fixed number of bytes of memory a row.

Each hash is looked up by some of its bits (a band). Rows are grouped by bucket of each band; those that came
since the last grouping are compared one and all, which for few of them costs less than grouping anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HASH_BITS = 64
_BUCKETS = 1 << 16
# 2^64 divided by the golden ratio, odd: its multiples spread evenly (Knuth, volume 3, 6.4).
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_FEWEST_UNGROUPED = 1024
_SHARE_UNGROUPED = 1 / 32
_GROWTH = 1.5

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Band:
    """Bits `low` to `high` of a hash, the higher one excluded."""

    low: int
    high: int

    def buckets(self, hashes: Hashes) -> NDArray[np.uint16]:
        """The bucket of each hash; hashes that agree in the band share one."""
        bits = hashes >> np.uint64(self.low)
        if self.high - self.low < HASH_BITS:
            bits &= np.uint64((1 << (self.high - self.low)) - 1)
        return ((bits * _SPREAD) >> np.uint64(48)).astype(np.uint16)


class HashIndex:
    """One hash a row, in the order that they were added: 8 bytes a row, and 4 for each band.

    Args:
        bands: by which a hash is looked up.
    """

    def __init__(self, bands: list[Band]) -> None:
        self._bands = bands
        self._hashes = np.empty(_FEWEST_UNGROUPED, np.uint64)
        self._count = 0
        self._grouped = 0
        self._rows = [np.empty(0, np.int32) for _ in bands]
        self._starts = [np.zeros(_BUCKETS + 1, np.int32) for _ in bands]

    def __len__(self) -> int:
        return self._count

    def add(self, value: int) -> None:
        """Append a row with this hash."""
        if self._count == len(self._hashes):
            larger = np.empty(int(_GROWTH * self._count), np.uint64)
            larger[: self._count] = self._hashes
            self._hashes = larger
        self._hashes[self._count] = value
        self._count += 1
        if self._count - self._grouped >= max(_FEWEST_UNGROUPED, _SHARE_UNGROUPED * self._grouped):
            self._group()

    def near(self, value: int, most_bits: int) -> Numbers:
        """The rows whose hash differs in at most `most_bits` bits and agrees in one of the bands, sorted."""
        wanted = np.array([value], np.uint64)
        found: list[NDArray[np.signedinteger]] = [np.arange(self._grouped, self._count)]
        for band, rows, starts in zip(self._bands, self._rows, self._starts, strict=True):
            bucket = int(band.buckets(wanted)[0])
            found.append(rows[starts[bucket] : starts[bucket + 1]])
        proposed = np.concatenate(found)
        distance = np.bitwise_count(self._hashes[proposed] ^ wanted[0])
        return np.unique(proposed[distance <= most_bits]).astype(np.int64)

    def bytes_held(self) -> int:
        """Memory of the arrays that grow with the rows."""
        return self._hashes.nbytes + sum(rows.nbytes for rows in self._rows)

    def _group(self) -> None:
        """Put all rows into the buckets, those of a bucket in their order."""
        for number, band in enumerate(self._bands):
            buckets = band.buckets(self._hashes[: self._count])
            self._rows[number] = np.argsort(buckets, kind="stable").astype(np.int32)
            counts = np.bincount(buckets, minlength=_BUCKETS)
            self._starts[number][1:] = np.cumsum(counts)
        self._grouped = self._count
