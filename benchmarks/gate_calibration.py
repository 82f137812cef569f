"""How often the champion rule passes, fails or cannot tell, by how much worse a candidate truly is.

    python benchmarks/gate_calibration.py [--trials 4000]

Pairs of models are simulated image by image and judged by the gates' own bootstrap, at both looks. What they share is
what two fine-tuned candidates of the bundled base were seen to share (see MEASURED): on one prompt and one noise they
disagree on every fourth image, images of one prompt hardly resemble each other, and no prompt favours one model.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinflow_core.gates.looks import LOOKS
from twinflow_core.gates.metrics import TASKS
from twinflow_core.gates.statistics import (
    degrees_of_freedom,
    holm_levels,
    one_sided_bounds,
    p_value,
    resampled_task_means,
)
from twinflow_core.params import PARAMS_FILE, load_params

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks/results/gate_calibration.json"
PICTURE = RESULT.with_suffix(".png")
# Held-out captions of the shapes world by task: no look can have more prompts.
CAPTIONS = {
    "single_object": 19, "two_object": 22, "counting": 48, "colors": 159, "position": 123, "color_attr": 2840,
}  # fmt: skip
MEASURED = {"champion_score": 0.6, "correlation_within_prompt": 0.05, "disagreement": 0.26}
MARGIN = 0.03
LEVEL = 0.95
SEED = 7
TRUE_DIFFERENCES = (-0.1, -0.08, -0.06, -0.05, -0.04, -0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.04, 0.06)
FAMILY_MARGIN = 0.10
AT_ONCE = 250

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Look:
    """The prompts and images of one look at the gates' defaults."""

    prompts_per_task: int
    images_per_prompt: int

    @property
    def tasks(self) -> list[str]:
        """The task of every prompt."""
        return [task for task in TASKS for _ in range(min(self.prompts_per_task, CAPTIONS[task]))]

    @property
    def task_prompts(self) -> Array:
        """[T], the prompts of each task, tasks in alphabetical order."""
        return np.array([self.tasks.count(task) for task in sorted(TASKS)], dtype=np.float64)


def simulate(random: np.random.Generator, look: Look, difference: float, trials: int) -> Array:
    """Correct images by prompt, [prompts, 2 trials]: the candidates of all trials, then the champions."""
    score, disagreement = MEASURED["champion_score"], MEASURED["disagreement"]
    concentration = 1 / MEASURED["correlation_within_prompt"] - 1
    shape = (len(look.tasks), trials)
    rate = random.beta(score * concentration, (1 - score) * concentration, shape)
    champion = random.binomial(look.images_per_prompt, rate)
    # Of all images, so many are right with one model alone.
    gained, lost = (disagreement + difference) / 2, (disagreement - difference) / 2
    gains = random.binomial(look.images_per_prompt - champion, gained / (1 - score))
    losses = random.binomial(champion, lost / score)
    return np.concatenate([champion + gains - losses, champion], axis=1).astype(np.float64)


def differences(look: Look, correct: Array, resamples: int) -> Array:
    """Bootstrap draws of every task's difference, [R, T, trials]."""
    images = np.full_like(correct, look.images_per_prompt)
    means = resampled_task_means(look.tasks, correct, images, resamples, SEED)
    trials = correct.shape[1] // 2
    return means[:, :, :trials] - means[:, :, trials:]


def decide(draws: Array, look: Look, level: float) -> tuple[Flags, Flags, Array]:
    """Of draws [R, T, trials]: which pass, which fail, and half the width of each interval."""
    prompts = look.task_prompts
    bounds = np.array(
        [
            one_sided_bounds(each.mean(axis=1), level, degrees_of_freedom(each, prompts))
            for each in draws.transpose(2, 0, 1)
        ]
    )
    return bounds[:, 0] >= -MARGIN, bounds[:, 1] < -MARGIN, (bounds[:, 1] - bounds[:, 0]) / 2


def calibrate(looks: tuple[Look, Look], difference: float, trials: int, resamples: int) -> dict[str, float]:
    """What becomes of `trials` candidates that are truly this much better than their champions."""
    random = np.random.default_rng(round(1000 * (difference + 1)))
    level = 1 - (1 - LEVEL) / LOOKS
    counts = dict.fromkeys(("pass_first", "fail_first", "pass", "fail"), 0)
    widths: list[Array] = []
    for first in range(0, trials, AT_ONCE):
        count = min(AT_ONCE, trials - first)
        (passed, failed, _), (passed_then, failed_then, width) = (
            decide(differences(look, simulate(random, look, difference, count), resamples), look, level)
            for look in looks
        )
        open_still = ~(passed | failed)
        counts["pass_first"] += int(passed.sum())
        counts["fail_first"] += int(failed.sum())
        counts["pass"] += int((passed | (open_still & passed_then)).sum())
        counts["fail"] += int((failed | (open_still & failed_then)).sum())
        widths.append(width)
    shares = {name: round(each / trials, 4) for name, each in counts.items()}
    return {
        "true_difference": difference,
        **shares,
        "inconclusive": round(1 - shares["pass"] - shares["fail"], 4),
        "second_look": round(1 - shares["pass_first"] - shares["fail_first"], 4),
        "half_width": round(float(np.concatenate(widths).mean()), 4),
    }


def family_error(look: Look, trials: int, resamples: int) -> float:
    """How often any of six rules, one a task, passes falsely when every task lies exactly at its margin."""
    random = np.random.default_rng(0)
    wrong = 0
    for first in range(0, trials, AT_ONCE):
        pairs = min(AT_ONCE, trials - first)
        draws = differences(look, simulate(random, look, -FAMILY_MARGIN, pairs), resamples)
        for trial in range(pairs):
            tasks = draws[:, :, trial].T
            p_values = [
                p_value(each, -FAMILY_MARGIN, count - 1)
                for each, count in zip(tasks, look.task_prompts, strict=True)
            ]
            levels = holm_levels(p_values, [LEVEL] * len(tasks))
            bounds = [
                one_sided_bounds(each, level, count - 1)[0]
                for each, level, count in zip(tasks, levels, look.task_prompts, strict=True)
            ]
            wrong += max(bounds) >= -FAMILY_MARGIN
    return round(wrong / trials, 4)


def draw_picture(rows: list[dict[str, float]], path: Path) -> None:
    """The shares of PASS, INCONCLUSIVE and FAIL over the true difference, with the margin and the level."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    truth = [row["true_difference"] for row in rows]
    colours = {"pass": "#15803d", "inconclusive": "#a15c07", "fail": "#c0262d"}
    for name, colour in colours.items():
        axes.plot(truth, [row[name] for row in rows], color=colour, marker="o", ms=4, label=name.upper())
    axes.axvline(-MARGIN, color="#18212f", lw=1, ls="--")
    axes.annotate("margin", (-MARGIN, 1.0), xytext=(4, -4), textcoords="offset points", va="top", fontsize=9)
    axes.axhline(1 - LEVEL, color="#5c6778", lw=1, ls=":")
    axes.annotate(
        "5 %", (truth[-1], 1 - LEVEL), xytext=(0, 3), textcoords="offset points", fontsize=9, ha="right"
    )
    axes.set_xlabel("true difference, candidate minus champion")
    axes.set_ylabel("share of candidates")
    axes.set_ylim(-0.02, 1.04)
    axes.legend(frameon=False, loc="center right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Write the result and its picture, and print it as a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=4000)
    trials = parser.parse_args().trials
    params = load_params(ROOT / PARAMS_FILE)
    gates, evaluate = params.gates, params.evaluate
    looks = (
        Look(evaluate.prompts_per_task, evaluate.images_per_prompt),
        Look(gates.most_prompts_per_task, gates.most_images_per_prompt),
    )
    rows = [calibrate(looks, difference, trials, gates.resamples) for difference in TRUE_DIFFERENCES]
    document: dict[str, Any] = {
        "settings": {
            "margin": MARGIN,
            "level": LEVEL,
            "looks": [[each.prompts_per_task, each.images_per_prompt] for each in looks],
            "images": [len(each.tasks) * each.images_per_prompt for each in looks],
            "resamples": gates.resamples,
            **MEASURED,
            "trials": trials,
        },
        "rows": rows,
        "family_error": family_error(looks[0], trials, gates.resamples),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draw_picture(rows, PICTURE)
    print("| true difference | PASS | INCONCLUSIVE | FAIL | PASS at the first look | needs a second look |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        names = ("pass", "inconclusive", "fail", "pass_first", "second_look")
        print(f"| {row['true_difference']:+.2f} | {' | '.join(f'{row[name]:.1%}' for name in names)} |")
    print(f"half-width of the second look: {rows[TRUE_DIFFERENCES.index(0.0)]['half_width']}")
    print(f"six rules, all exactly at their margin: {document['family_error']:.1%} with a false PASS")


if __name__ == "__main__":
    main()
