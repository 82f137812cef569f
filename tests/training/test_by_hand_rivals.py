"""The rivals' losses and gradients against their papers' equations, written out row by row in float64 (`by_hand.py`).

Flow matching; MeanFlow (arXiv 2505.13447); VSD with DMD's weight (arXiv 2311.18828), its images moved as x - F moves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.training.by_hand import Formulas, Term, assert_equal, make_step, options
from twinflow_core.finetune_params import FinetuneParams

Rows = dict[str, np.ndarray]
RECIPES: dict[str, dict[str, Any]] = {
    "flow matching": {"objective": "flow_matching"},
    "flow matching without guidance": {"objective": "flow_matching", "guidance": 0.0},
    "flow matching on the base": {"objective": "flow_matching", "real_velocity": "base"},
    "meanflow": {"objective": "meanflow"},
    "meanflow, exact": {"objective": "meanflow", "meanflow": {"derivative": "forward_mode"}},
    "meanflow on the base": {"objective": "meanflow", "real_velocity": "base"},
    "vsd": {"objective": "vsd"},
    "vsd without guidance": {"objective": "vsd", "guidance": 0.0},
}


def velocity(
    given: Rows, i: int, formulas: Formulas, chosen: FinetuneParams
) -> tuple[np.ndarray, np.ndarray]:
    """x_t, and v* there."""
    t, z, x, c = (given[name][i] for name in ("t", "z", "x", "c"))
    x_t = t * z + (1 - t) * x
    return x_t, formulas.guided(x_t, z - x, t, c, chosen)


def flow_matching_row(given: Rows, i: int, formulas: Formulas, chosen: FinetuneParams) -> Term:
    """F(x_t, t, t) to v*."""
    (x_t, v), t, c = velocity(given, i, formulas, chosen), given["t"][i], given["c"][i]
    return Term(1.0, formulas.online.of_row(x_t, t, t, c) - v, formulas.online.slopes(x_t, t, t, c))


def meanflow_row(given: Rows, i: int, formulas: Formulas, chosen: FinetuneParams) -> Term:
    """F(x_t, t, r) to v* - (t - r) dF/dt, its derivative exact or by a difference."""
    (x_t, v), online = velocity(given, i, formulas, chosen), formulas.online
    t, r, c = (float(given[name][i]) for name in ("t", "r", "c"))
    prediction = online.of_row(x_t, t, r, c)
    if chosen.meanflow.derivative == "forward_mode":
        derivative = online.along_path(x_t, t, r, v)
    else:
        small = min(chosen.meanflow.step, t / 2)
        derivative = (prediction - online.of_row(x_t - small * v, t - small, r, c)) / small
    return Term(1.0, prediction - (v - (t - r) * derivative), online.slopes(x_t, t, r, c))


def generator_row(given: Rows, i: int, formulas: Formulas, chosen: FinetuneParams) -> Term:
    """x = z - F(z, 1, 0), moved from the fakes' denoised image to the real one's, over the latter's distance to x."""
    z, c, t, fresh = (given[name][i] for name in ("z", "c", "rectify_t", "rectify_z"))
    x = z - formulas.online.of_row(z, 1.0, 0.0, c)
    x_t = t * fresh + (1 - t) * x
    real = x_t - t * formulas.guided_base(x_t, t, c, chosen.guidance)
    fake = x_t - t * formulas.own.of_row(x_t, t, 0.0, c)
    move = (real - fake) / np.mean(np.abs(x - real))
    # The prediction is x, of which F is minus the part that learns.
    return Term(0.5, -move, -formulas.online.slopes(z, 1.0, 0.0, c), robust=False)


def fake_score_row(given: Rows, i: int, formulas: Formulas, first: int) -> Term:
    """The own network at (x_t, t) to z - x, for x the model's own image of other noise."""
    noise, z, t, c = given["fake_z"][i - first], given["z"][i], -given["t"][i], given["c"][i]
    x = noise - formulas.online.of_row(noise, 1.0, 0.0, c)
    x_t = t * z + (1 - t) * x
    residual = formulas.own.of_row(x_t, t, 0.0, c) - (z - x)
    return Term(1.0, residual, formulas.own.slopes(x_t, t, 0.0, c), robust=False)


@pytest.mark.parametrize("recipe", RECIPES)
@given(st.tuples(*[st.integers(1, 3)] * 4), st.tuples(*[st.integers(1, 3)] * 3), st.integers(0, 999))
@example((3, 2, 2, 2), (2, 3, 2), 0)
@settings(max_examples=8, deadline=None)
def test_loss_and_gradient_are_those_of_the_equations(
    recipe: str, rows: tuple[int, ...], shape: tuple[int, ...], seed: int
) -> None:
    chosen = options(**RECIPES[recipe])
    step, formulas = make_step(chosen, rows, shape, seed), Formulas.make()
    given, counts = step.arrays, step.counts
    online: list[Term] = []
    own: list[Term] = []
    if chosen.objective == "flow_matching":
        online = [flow_matching_row(given, i, formulas, chosen) for i in range(counts.total)]
    elif chosen.objective == "meanflow":
        online = [meanflow_row(given, i, formulas, chosen) for i in range(counts.total)]
    else:
        online = [generator_row(given, i, formulas, chosen) for i in range(counts.one_step)]
        fakes = range(counts.one_step, counts.total)
        own = [fake_score_row(given, i, formulas, counts.one_step) for i in fakes]
    found = step.loss(formulas, chosen)
    loss = sum(term.loss for term in online + own) / counts.total
    assert_equal(found, formulas, loss, online, own, counts.total)
