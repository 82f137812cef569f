"""The bootstrap against closed forms and a loop, its bounds, and Holm against statsmodels."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from twinflow_core.gates.metrics import TASKS
from twinflow_core.gates.statistics import (
    TooFewPromptsError,
    _prompt_counts,
    degrees_of_freedom,
    holm_levels,
    least_resamples,
    one_sided_bounds,
    p_value,
    resampled_task_means,
    task_means,
)


def clusters(prompts: int, models: int, seed: int = 0) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Prompts of six tasks with 1 to 4 images each, correct sums for several models."""
    generator = np.random.default_rng(seed)
    tasks = [TASKS[index % 6] for index in range(prompts)]
    images = np.repeat(generator.integers(1, 5, (prompts, 1)), models, axis=1)
    rate = np.clip(generator.normal(0.7, 0.2, (prompts, 1)), 0, 1)
    return tasks, generator.binomial(images, rate).astype(float), images.astype(float)


def test_vectorised_equals_the_loop() -> None:
    tasks, correct, images = clusters(60, 3)
    fast = resampled_task_means(tasks, correct, images, 20, seed=5)
    for task_index, task in enumerate(sorted(set(tasks))):
        members = [index for index, each in enumerate(tasks) if each == task]
        counts = _prompt_counts(len(members), 20, 5, task)
        assert (counts.sum(1) == len(members) - 1).all()
        for draw in range(20):
            for model in range(3):
                drawn = [m for m, times in zip(members, counts[draw], strict=True) for _ in range(int(times))]
                mean = sum(correct[m, model] for m in drawn) / sum(images[m, model] for m in drawn)
                assert fast[draw, task_index, model] == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("prompts_per_task", [4, 16, 100])
def test_standard_error_is_that_of_a_stratified_mean_of_clusters(prompts_per_task: int) -> None:
    generator = np.random.default_rng(1)
    tasks = [task for task in TASKS for _ in range(prompts_per_task)]
    correct = generator.binomial(4, 0.7, (len(tasks), 1)).astype(float)
    draws = resampled_task_means(tasks, correct, np.full_like(correct, 4), 20_000, seed=0)[:, :, 0].mean(1)
    by_task = (correct / 4).reshape(6, prompts_per_task)
    analytic = np.sqrt((by_task.var(1, ddof=1) / prompts_per_task).sum()) / 6
    assert draws.std() == pytest.approx(analytic, rel=0.02)
    assert draws.mean() == pytest.approx(by_task.mean(), abs=4 * analytic / np.sqrt(20_000))


def test_images_of_a_prompt_that_agree_count_once() -> None:
    tasks = [TASKS[0]] * 50
    correct = np.random.default_rng(0).binomial(1, 0.6, (50, 1)).astype(float)
    one = resampled_task_means(tasks, correct, np.ones((50, 1)), 2000, seed=0)
    four = resampled_task_means(tasks, 4 * correct, np.full((50, 1), 4.0), 2000, seed=0)
    assert np.allclose(one, four)


def test_pairing_removes_what_prompts_share() -> None:
    tasks, correct, images = clusters(120, 1)
    both = np.concatenate([correct, np.maximum(correct - 1, 0)], axis=1)
    draws = resampled_task_means(tasks, both, np.repeat(images, 2, 1), 2000, seed=0).mean(1)
    alone = np.hypot(draws[:, 0].std(), draws[:, 1].std())
    assert (draws[:, 0] - draws[:, 1]).std() < 0.6 * alone


def test_six_tasks_weigh_alike_however_many_images_they_have() -> None:
    tasks = ["a"] * 9 + ["b"]
    assert task_means(tasks, np.array([[1.0]] * 9 + [[0.0]]), np.ones((10, 1))).mean() == 0.5


def test_draws_depend_on_the_seed_alone() -> None:
    tasks, correct, images = clusters(60, 2)
    first, again, other = (resampled_task_means(tasks, correct, images, 50, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_one_prompt_has_no_spread() -> None:
    with pytest.raises(TooFewPromptsError):
        resampled_task_means(["a"], np.ones((1, 1)), np.ones((1, 1)), 10, seed=0)


def test_bounds_are_the_normal_quantiles_of_normal_draws() -> None:
    low, high = one_sided_bounds(np.random.default_rng(0).normal(size=200_000), 0.95)
    assert (low, high) == (pytest.approx(-1.645, abs=0.02), pytest.approx(1.645, abs=0.02))


def test_few_prompts_move_the_bounds_out_as_students_quantile_lies_beyond_the_normal_one() -> None:
    draws = np.random.default_rng(0).normal(size=200_000)
    low, high = one_sided_bounds(draws, 0.95, freedom=7)
    assert (low, high) == (pytest.approx(-1.895, abs=0.02), pytest.approx(1.895, abs=0.02))
    assert p_value(draws, -1.895, freedom=7) == pytest.approx(0.05, abs=0.002)


def test_degrees_of_freedom_are_welchs() -> None:
    draws = np.random.default_rng(0).normal(size=(100_000, 2)) * [1.0, 2.0]
    assert degrees_of_freedom(draws[:, :1], np.array([16.0])) == pytest.approx(15)
    expected = (1 + 4) ** 2 / (1 / 9 + 16 / 19)
    assert degrees_of_freedom(draws, np.array([10.0, 20.0])) == pytest.approx(expected, rel=0.02)
    assert np.isinf(degrees_of_freedom(np.zeros((10, 2)), np.array([4.0, 4.0])))


def test_too_few_draws_or_a_nan_bound_nothing() -> None:
    assert one_sided_bounds(np.zeros(10), 0.95) == (-np.inf, np.inf)
    assert one_sided_bounds(np.array([0.0] * 99 + [np.nan]), 0.9) == (-np.inf, np.inf)
    assert p_value(np.array([5.0] * 99 + [np.nan]), 0.0) == 1.0
    assert least_resamples(0.95) == 19
    assert one_sided_bounds(np.arange(19.0), 0.95) == (0.0, 18.0)
    assert one_sided_bounds(np.arange(18.0), 0.95) == (-np.inf, np.inf)


@settings(deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=100, max_size=300),
    st.floats(-1, 1),
    st.floats(0.6, 0.99),
    st.sampled_from([3.0, 15.0, np.inf]),
)
def test_p_value_and_bound_say_the_same(
    values: list[float], bound: float, level: float, freedom: float
) -> None:
    draws = np.array(values)
    p = p_value(draws, bound, freedom)
    if abs(p - (1 - level)) > 1e-6:
        assert (one_sided_bounds(draws, level, freedom)[0] >= bound) == (p <= 1 - level)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    levels = holm_levels(p_values, [0.95] * len(p_values))
    ours = [p <= 1 - level + 1e-12 for p, level in zip(p_values, levels, strict=True)]
    assert ours == multipletests(p_values, alpha=0.05, method="holm")[0].tolist()
    assert all(0.95 <= level <= 1 - 0.05 / len(p_values) + 1e-12 for level in levels)


def test_ten_thousand_draws_of_a_whole_benchmark_take_under_two_seconds() -> None:
    tasks, correct, images = clusters(553, 40)
    start = time.process_time()
    draws = resampled_task_means(tasks, correct, images, 10_000, seed=0)
    for pair in range(20):
        one_sided_bounds(draws[:, :, 2 * pair].mean(1) - draws[:, :, 2 * pair + 1].mean(1), 0.95)
    assert time.process_time() - start < 2.0
