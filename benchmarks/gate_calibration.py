"""How often the champion rule passes, fails or cannot tell, by how much worse a candidate truly is.

    python benchmarks/gate_calibration.py [--trials 4000]

Pairs of models are simulated, image by image, and judged by the gates' own bootstrap. A champion is right on 82 %
of its images, with prompts that differ in difficulty (images of one prompt correlate at 0.4). A candidate shares
that difficulty on half of the prompts and has its own on the rest, as a model trained anew from the same base.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinflow_core.gates.metrics import TASKS
from twinflow_core.gates.statistics import one_sided_bounds, resampled_task_means

RESULT = Path(__file__).parent / "results/gate_calibration.json"
CHAMPION_SCORE = 0.82
CORRELATION = 0.4
SHARED_DIFFICULTY = 0.5
IMAGES = 4
MARGIN = 0.03
LEVEL = 0.95
RESAMPLES = 2000
SEED = 7
PROMPTS_PER_TASK = (8, 16, 32, 64)
TRUE_DIFFERENCES = (0.03, 0.0, -0.03, -0.06, -0.10)
AT_ONCE = 250

Array = NDArray[np.float64]


def simulate(random: np.random.Generator, prompts: int, difference: float, trials: int) -> Array:
    """Correct images by prompt, [prompts, 2 trials]: the candidates of all trials, then the champions."""
    concentration = 1 / CORRELATION - 1
    shape = CHAMPION_SCORE * concentration, (1 - CHAMPION_SCORE) * concentration
    champion = random.beta(*shape, (prompts, trials))
    own = random.beta(*shape, (prompts, trials))
    shared = random.random((prompts, trials)) < SHARED_DIFFICULTY
    rate = np.where(shared, champion, own)
    # Better: some of the wrong images turn right; worse: some of the right ones turn wrong.
    if difference >= 0:
        candidate = rate + (1 - rate) * difference / (1 - CHAMPION_SCORE)
    else:
        candidate = rate * (1 + difference / CHAMPION_SCORE)
    drawn = random.binomial(IMAGES, np.concatenate([candidate, champion], axis=1))
    return drawn.astype(np.float64)


def calibrate(per_task: int, difference: float, trials: int) -> dict[str, float]:
    """Shares of PASS, INCONCLUSIVE and FAIL, and the mean half-width of the interval."""
    random = np.random.default_rng([per_task, round(1000 * (difference + 1))])
    tasks = [task for task in TASKS for _ in range(per_task)]
    passed = failed = 0
    widths: list[float] = []
    for first in range(0, trials, AT_ONCE):
        count = min(AT_ONCE, trials - first)
        correct = simulate(random, len(tasks), difference, count)
        images = np.full_like(correct, IMAGES)
        scores = resampled_task_means(tasks, correct, images, RESAMPLES, SEED).mean(axis=1)
        for draws in (scores[:, :count] - scores[:, count:]).T:
            low, high = one_sided_bounds(draws, LEVEL)
            passed += low >= -MARGIN
            failed += high < -MARGIN
            widths.append((high - low) / 2)
    return {
        "prompts_per_task": per_task,
        "true_difference": difference,
        "pass": round(passed / trials, 4),
        "inconclusive": round((trials - passed - failed) / trials, 4),
        "fail": round(failed / trials, 4),
        "half_width": round(float(np.mean(widths)), 4),
    }


def main() -> None:
    """Write the result and print it as a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=4000)
    trials = parser.parse_args().trials
    rows = [
        calibrate(each, difference, trials) for each in PROMPTS_PER_TASK for difference in TRUE_DIFFERENCES
    ]
    settings = {
        "margin": MARGIN,
        "level": LEVEL,
        "resamples": RESAMPLES,
        "images_per_prompt": IMAGES,
        "champion_score": CHAMPION_SCORE,
        "correlation_within_prompt": CORRELATION,
        "prompts_of_shared_difficulty": SHARED_DIFFICULTY,
        "trials": trials,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print("| prompts a task | true difference | PASS | INCONCLUSIVE | FAIL | half-width |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        cells = (f"{row[key]:.1%}" for key in ("pass", "inconclusive", "fail"))
        print(
            f"| {row['prompts_per_task']} | {row['true_difference']:+.2f} | {' | '.join(cells)} "
            f"| {row['half_width']:.3f} |"
        )


if __name__ == "__main__":
    main()
