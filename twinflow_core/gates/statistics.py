"""The paired, prompt-clustered bootstrap of a mean of task means, its bounds, and Holm's control over rules.

A score is GenEval's: the unweighted mean of the tasks' means over images (arXiv 2310.11513). Prompts are
drawn within their task, with all their images, and the same draws serve every model, so that differences are
paired. A task of n prompts gets n - 1 draws (Rao and Wu, JASA 83, 1988): that makes the bootstrap variance of
a task's mean the unbiased s²/n, where n draws would make it too small by (n - 1)/n, 6 % at 16 prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

Array = NDArray[np.float64]


class TooFewPromptsError(Exception):
    """A task has one prompt: how much prompts differ cannot be seen, so there is no interval."""


def task_means(tasks: Sequence[str], correct: Array, images: Array) -> Array:
    """The mean over images of every task.

    Args:
        tasks: the task of each of P prompts.
        correct, images: [P, K], summed by prompt, for K models.

    Returns:
        float64 [T, K], tasks in alphabetical order.
    """
    labels = np.asarray(tasks)
    members = [labels == task for task in sorted(set(tasks))]
    return np.stack([correct[rows].sum(0) / images[rows].sum(0) for rows in members])


def resampled_task_means(
    tasks: Sequence[str], correct: Array, images: Array, resamples: int, seed: int
) -> Array:
    """`task_means` of `resamples` bootstrap draws of the prompts, the same draws for all K models.

    Args:
        tasks, correct, images: as in `task_means`.
        resamples: how many draws, R.
        seed: the draws depend on it, on the task's name and on its number of prompts alone.

    Returns:
        float64 [R, T, K].

    Raises:
        TooFewPromptsError: a task has a single prompt.
    """
    labels = np.asarray(tasks)
    means = []
    for task in sorted(set(tasks)):
        rows = labels == task
        counts = _prompt_counts(int(rows.sum()), resamples, seed, task)
        means.append((counts @ correct[rows]) / (counts @ images[rows]))
    return np.stack(means, axis=1)


def _prompt_counts(prompts: int, resamples: int, seed: int, task: str) -> Array:
    """How often each prompt is drawn, float64 [resamples, prompts]; every row sums to prompts - 1."""
    if prompts < 2:
        raise TooFewPromptsError(f"task {task} has one prompt")
    digest = hashlib.sha256(f"{seed}/bootstrap/{task}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    drawn = generator.integers(0, prompts, (resamples, prompts - 1), dtype=np.int64)
    drawn += np.arange(resamples, dtype=np.int64)[:, None] * prompts
    counts = np.bincount(drawn.ravel(), minlength=resamples * prompts)
    return counts.reshape(resamples, prompts).astype(np.float64)


def degrees_of_freedom(parts: Array, task_prompts: Array) -> float:
    """How well the spread of a mean over tasks is known: Welch and Satterthwaite's degrees of freedom.

    Args:
        parts: [R, T], bootstrap draws of what each task adds.
        task_prompts: [T], prompts of each task.

    Returns:
        Between the least and the sum of the tasks' n - 1; infinite where nothing varies.
    """
    spread = parts.var(axis=0)
    total = float(spread.sum())
    if not total > 0:
        return np.inf
    return total**2 / float((spread**2 / (task_prompts - 1)).sum())


def one_sided_bounds(draws: Array, level: float, freedom: float = np.inf) -> tuple[float, float]:
    """The lower and the upper bound, each of which the truth passes with probability 1 - level.

    A percentile of the draws takes their spread for known. It is estimated from few prompts, so the percentile
    is moved out as Student's quantile lies beyond the normal one (Hesterberg, Am. Stat. 69, 2015: the
    expanded percentile interval).

    Args:
        draws: [R] bootstrap values.
        level: one-sided confidence. Both bounds together make an interval of confidence 2·level - 1.
        freedom: the degrees of freedom behind the draws' spread.

    Returns:
        Order statistics of the draws; infinite where R draws are too few for the level, or one is NaN.
    """
    if np.isnan(draws).any():
        return -np.inf, np.inf
    ordered = np.sort(draws)
    rank = _rank(len(ordered), _expanded(1.0 - level, freedom))
    if rank == 0:
        return -np.inf, np.inf
    return float(ordered[rank - 1]), float(ordered[-rank])


def p_value(draws: Array, bound: float, freedom: float = np.inf) -> float:
    """The smallest 1 - level at which the lower bound of the draws is not under `bound`: [R] -> (0, 1].

    1 where a draw is NaN.
    """
    if np.isnan(draws).any():
        return 1.0
    share = float((np.count_nonzero(draws < bound) + 1) / (len(draws) + 1))
    return share if np.isinf(freedom) or share >= 1.0 else float(stdtr(freedom, ndtri(share)))


def least_resamples(level: float) -> int:
    """How many draws it takes to have a bound at this level at all; more if there are few prompts."""
    return int(np.ceil(round(1.0 / (1.0 - level) - 1.0, 6)))


def holm_levels(p_values: Sequence[float], levels: Sequence[float]) -> list[float]:
    """The confidence at which each rule of a family must hold, so that the family's error stays at its own.

    Holm's step-down (Scand. J. Stat. 6, 1979): the rule with the smallest p is held to 1 - α/m, the next to
    1 - α/(m-1) and so on; from the first that fails its step, all the others are held to that step, at which
    they fail too. So a bound at the level given here says what Holm's procedure says.

    Args:
        p_values: one a rule.
        levels: the confidence that each rule asks for on its own, 1 - α.

    Returns:
        The confidence to use for each rule, in the order given.
    """
    alphas = [1.0 - level for level in levels]
    order = sorted(range(len(p_values)), key=lambda index: (p_values[index] / alphas[index], index))
    used = list(levels)
    left = len(order)
    for index in order:
        used[index] = 1.0 - alphas[index] / left
        if p_values[index] <= alphas[index] / left + 1e-12:
            left -= 1
    return used


def _expanded(alpha: float, freedom: float) -> float:
    """The share of draws to leave out, so that a tail of `alpha` is left out of what they are drawn from."""
    return alpha if np.isinf(freedom) else float(ndtr(stdtrit(freedom, alpha)))


def _rank(resamples: int, alpha: float) -> int:
    # Rounded, as 0.05 · 2000 falls a hair under 100 in floating point.
    return int(np.floor(round(alpha * (resamples + 1), 9)))
