"""The learning rate's rise and fall."""

import pytest

from twinflow_core.training.schedule import learning_rate_factor


def test_rise_plateau_and_fall() -> None:
    factors = [learning_rate_factor(step, 100, 10, 20) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:80] == [1.0] * 71
    assert factors[99] == pytest.approx(1 / 20)
    assert all(0 < factor <= 1 for factor in factors)


def test_neither_rise_nor_fall() -> None:
    assert {learning_rate_factor(step, 5, 0, 0) for step in range(5)} == {1.0}
