"""Rows are found by their hashes as a comparison with all of them finds them, in the memory that is promised."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from twinflow_core.data.duplicates import DuplicateIndex, Fingerprint
from twinflow_core.data.hash_index import Band, HashIndex

ROWS = 5000


def _index(hashes: np.ndarray, bits: int) -> HashIndex:
    edges = np.linspace(0, 64, bits + 2).astype(int).tolist()
    index = HashIndex([Band(low, high) for low, high in pairwise(edges)])
    for value in hashes.tolist():
        index.add(value)
    return index


@given(st.integers(0, 12), st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_what_is_near_is_found_before_and_after_grouping(bits: int, seed: int) -> None:
    noise = np.random.default_rng(seed)
    hashes = noise.integers(0, 2**64, ROWS, dtype=np.uint64)
    flips = noise.integers(0, 64, (ROWS, bits + 1)).astype(np.uint64)
    for column in flips.T:
        hashes[1::2] = hashes[::2] ^ (np.uint64(1) << column[::2]) if bits else hashes[::2]
    index = _index(hashes, bits)
    assert 0 < index._grouped < ROWS
    for row in [*range(40), *range(ROWS - 40, ROWS)]:
        distance = np.bitwise_count(hashes ^ hashes[row])
        assert index.near(int(hashes[row]), bits).tolist() == np.flatnonzero(distance <= bits).tolist()


def test_a_row_takes_the_bytes_that_are_promised() -> None:
    index = DuplicateIndex(4)
    noise = np.random.default_rng(0)
    for number in range(ROWS):
        name = noise.bytes(32)
        print_ = Fingerprint(name.hex(), name, number * 0x9E3779B97F4A7C15 % 2**64, np.zeros(192, np.uint8))
        index.add(print_, str(number), "a", "train")
    # 52 bytes a row, less 28 for the latest that are not grouped; the three arrays of hashes have room for half
    # as many again.
    assert 40 * ROWS < index.bytes_held() <= (52 + 12) * ROWS
