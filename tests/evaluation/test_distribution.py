"""The distribution score: bounds, order, and the closed form of two points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinflow_core.evaluation.distribution import distribution_score


def flat(values: list[int]) -> np.ndarray:
    return np.stack([np.full((16, 16, 3), value, np.uint8) for value in values])


def noise(seed: int, count: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (count, 32, 32, 3), dtype=np.uint8)


def test_two_different_points_are_as_far_as_can_be() -> None:
    assert distribution_score(flat([0, 0]), flat([255, 255])) == 0


def test_equal_sets_of_one_point_score_one() -> None:
    assert distribution_score(flat([9, 9]), flat([9, 9])) == 1


@given(st.integers(0, 99), st.integers(2, 12), st.integers(2, 12))
@settings(max_examples=25, deadline=None)
def test_it_lies_between_zero_and_one(seed: int, count: int, other: int) -> None:
    assert 0 <= distribution_score(noise(seed, count), noise(seed + 1, other, 0, 128)) <= 1


def test_nearer_distributions_score_higher() -> None:
    real = noise(0, 60)
    same, near, far = noise(1, 60), noise(1, 60, 0, 230), noise(1, 60, 0, 90)
    scores = [distribution_score(images, real) for images in (same, near, far)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.9


def test_collapse_to_the_mean_is_seen() -> None:
    real = flat([0, 85, 170, 255] * 5)
    assert distribution_score(flat([127] * 20), real) < 0.6


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples"):
        distribution_score(np.zeros((2, 20, 20, 3), np.uint8), np.zeros((2, 20, 20, 3), np.uint8))
