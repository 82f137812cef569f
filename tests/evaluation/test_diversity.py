"""Diversity counts correct images alone where correctness is known."""

import math

import numpy as np
import pytest

from tests.evaluation.test_samples import make
from twinflow_core.evaluation.diversity import diversity, pixel_distance

BLACK, WHITE = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)


def test_the_distance_of_black_and_white_is_one() -> None:
    assert pixel_distance(BLACK, WHITE) == 1
    assert pixel_distance(WHITE, BLACK) == 1
    assert pixel_distance(WHITE, WHITE) == 0


def test_pairs_of_a_prompt_are_averaged() -> None:
    samples = [make(1, BLACK), make(1, WHITE), make(1, WHITE)]
    assert diversity(samples) == pytest.approx(2 / 3)


def test_wrong_images_are_not_diverse() -> None:
    assert diversity([make(1, BLACK), make(1, BLACK), make(0, WHITE)]) == 0


def test_without_two_images_there_is_no_number() -> None:
    assert math.isnan(diversity([make(1, BLACK), make(0, WHITE)]))


def test_all_count_where_nothing_is_judged() -> None:
    assert diversity([make(float("nan"), BLACK), make(float("nan"), WHITE)]) == 1
