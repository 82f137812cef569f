"""TwinFlow's loss and gradient against the paper's equations (arXiv 2512.05150 v2), written out row by row in float64.

Nothing of `flow/` is called here, see `by_hand.py`. What the paper leaves to the authors' code (the clamps at 1, the
robust distance, the weight in time, the guided target) and what is an option of ours is written out, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.training.by_hand import Formula, Formulas, Step, Term, assert_equal, make_step, options
from twinflow_core.finetune_params import FinetuneParams

BASE = {"real_velocity": "base"}
BUNDLED = BASE | {
    "guidance": 4.0,
    "fake_velocity": "own",
    "one_step_target": "rectified",
    "rectify_target": "normalised",
    "rectify_weight": 2.0,
    "adversarial_weight": 3.0,
}
RECIPES: dict[str, dict[str, Any]] = {
    "the authors'": {},
    "without guidance": {"guidance": 0.0},
    "bundled": BUNDLED,
    "bundled, clamped": BUNDLED | {"rectify_target": "clamped"},
    "bundled, recursive": BUNDLED | {"one_step_target": "recursive", "fakes": "shared"},
    "base and one network": BASE | {"rectify_target": "normalised"},
    "base without guidance": BASE | {"guidance": 0.0},
    "near velocity": {"near_target": "velocity", "rectify_target": "normalised"},
    "shared fakes": {"fakes": "shared", "adversarial_weight": 1.7},
    "data-free": BASE | {"data_free": True},
    "data-free, rectified": BUNDLED | {"data_free": True},
    "rcgm": {"objective": "rcgm"},
}
EVERY_ROLE = (3, 2, 2, 4)


class ByHand:
    """The loss of one step, row by row."""

    def __init__(self, step: Step, formulas: Formulas, chosen: FinetuneParams) -> None:
        self.given, self.counts = step.arrays, step.counts
        self.formulas, self.options = formulas, chosen
        self.real = step.counts.total - step.counts.fake

    def image(self, i: int) -> tuple[np.ndarray, float]:
        """A row's x and prompt: the data's, or of x = z - F(z, 1, 0) where the row starts from the model's own."""
        c, number = self.given["c"], i - self.real
        if self.options.data_free:
            noise, prompt = self.given["fake_z"][i], c[i]
        elif number < 0:
            return self.given["x"][i], c[i]
        elif self.options.fakes == "shared" and self.counts.one_step:
            source = number % self.counts.one_step
            noise, prompt = self.given["z"][source], c[source]
        else:
            noise, prompt = self.given["fake_z"][number], c[i]
        return noise - self.formulas.online.of_row(noise, 1.0, 0.0, prompt), prompt

    def error(self, i: int) -> np.ndarray:
        """Eq. 1 divided by the small step: how far F(x_t, t, r) is from it."""
        x_t, v, t, r, c = self.place(i)
        small = min(self.options.delta, t - r)
        state, time = x_t - small * v, t - small
        jumps = np.zeros_like(state)
        for k in range(self.options.order):
            until = (t - small) + (r - (t - small)) * (k + 1) / self.options.order
            jump = (time - until) * self.formulas.averaged.of_row(state, time, until, c)
            jumps, state, time = jumps + jump, state - jump, until
        prediction = self.formulas.online.of_row(x_t, t, r, c)
        if t - r <= self.options.delta:
            return prediction - v
        # f(x_t, r) = x_r - x_t is minus the displacement.
        error: np.ndarray = ((t - r) * prediction - jumps - small * v) / small
        return error

    def place(self, i: int) -> tuple[np.ndarray, np.ndarray, float, float, float]:
        """x_t, v*, t, r and prompt of a row of the positive branch."""
        (x, c), z = self.image(i), self.given["z"][i]
        t, r = float(self.given["t"][i]), float(self.given["r"][i])
        if self.options.near_target == "velocity" and self.is_near(i):
            r = t
        x_t, v = t * z + (1 - t) * x, z - x
        return x_t, v if t == 1 else self.formulas.guided(x_t, v, t, c, self.options), t, r, c

    def is_near(self, i: int) -> bool:
        return self.counts.one_step <= i < self.counts.one_step + self.counts.near

    def is_recursive(self, i: int) -> bool:
        if i < self.counts.one_step:
            return self.options.one_step_target == "recursive" or self.options.objective == "rcgm"
        return self.options.near_target == "recursive" or not self.is_near(i)

    def base_row(self, i: int) -> Term:
        """L_base, eq. 1, or flow matching at r = t."""
        x_t, v, t, r, c = self.place(i)
        slopes = self.formulas.online.slopes(x_t, t, r, c)
        weight = np.tan((1 - (t - r)) * np.pi / 2.5) + 1
        if self.is_recursive(i):
            return Term(weight, np.clip(self.error(i), -1, 1), slopes)
        if i < self.counts.one_step:
            return Term(0.0, x_t, slopes)
        return Term(weight, self.formulas.online.of_row(x_t, t, t, c) - v, slopes)

    def fake_row(self, i: int) -> Term:
        """L_adv, eq. 2, at negative times, or by a network of its own under the square."""
        (fake, c), fresh, t = self.image(i), self.given["z"][i], float(-self.given["t"][i])
        mixed = t * fresh + (1 - t) * fake
        network, asked = self.fakes_network()
        prediction = network.of_row(mixed, asked * t, min(asked, 0) * t, c)
        slopes = network.slopes(mixed, asked * t, min(asked, 0) * t, c)
        robust = self.options.fake_velocity != "own"
        return Term(self.options.adversarial_weight, prediction - (fresh - fake), slopes, robust)

    def fakes_network(self) -> tuple[Formula, int]:
        """What gives the fakes' velocity, and the sign of the times (t, and r where it has one) it is asked at."""
        own = self.options.fake_velocity == "own"
        return (self.formulas.own, 1) if own else (self.formulas.online, -1)

    def difference(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Delta_v (eq. 7) at the re-noised one-step image, v_real there, and z' - x."""
        z, c = self.given["z"][i], self.given["c"][i]
        x = z - self.formulas.online.of_row(z, 1.0, 0.0, c)
        t, fresh = float(self.given["rectify_t"][i]), self.given["rectify_z"][i]
        mixed = t * fresh + (1 - t) * x
        if self.options.real_velocity == "base":
            real = self.formulas.guided_base(mixed, t, c, self.options.guidance)
        else:
            real = self.formulas.online.of_row(mixed, t, t, c)
        network, asked = self.fakes_network()
        return real - network.of_row(mixed, asked * t, min(asked, 0) * t, c), real, fresh - x

    def rectify_row(self, i: int) -> Term:
        """L_rectify, eq. 9: Delta_v clamped under the robust distance, or over DMD's weight under the square."""
        z, c = self.given["z"][i], self.given["c"][i]
        difference, real, instant = self.difference(i)
        slopes = self.formulas.online.slopes(z, 1.0, 0.0, c)
        if self.options.rectify_target == "clamped":
            return Term(self.options.rectify_weight, -np.clip(difference, -1, 1), slopes)
        off = max(float(np.mean(np.abs(real - instant))), 0.05)
        return Term(self.options.rectify_weight, -difference / off, slopes, robust=False)

    def terms(self) -> tuple[list[Term], list[Term], list[Term]]:
        """Eq. 10: L_base, L_adv, and L_rectify as if its mean, too, were over all rows."""
        rectified = range(self.counts.one_step if self.options.objective == "twinflow" else 0)
        more = self.counts.total / max(len(rectified), 1)
        rectify = [self.rectify_row(i) for i in rectified]
        return (
            [self.base_row(i) for i in range(self.real)],
            [self.fake_row(i) for i in range(self.real, self.counts.total)],
            [replace(term, weight=term.weight * more) for term in rectify],
        )


rows = st.tuples(*[st.integers(0, 3)] * 4).filter(lambda counts: sum(counts[:3]) > 0)


@pytest.mark.parametrize("recipe", RECIPES)
@given(rows, st.integers(1, 4), st.tuples(*[st.integers(1, 3)] * 3), st.integers(0, 999))
@example(EVERY_ROLE, 2, (2, 3, 2), 0)
@settings(max_examples=12, deadline=None)
def test_loss_and_gradient_are_those_of_the_equations(
    recipe: str, rows: tuple[int, ...], order: int, shape: tuple[int, ...], seed: int
) -> None:
    chosen = options(**RECIPES[recipe], order=order)
    step, formulas = make_step(chosen, rows, shape, seed), Formulas.make()
    by_hand = ByHand(step, formulas, chosen)
    base, fake, rectify = by_hand.terms()
    own = fake if chosen.has_fake_score else []
    online = base + rectify + ([] if chosen.has_fake_score else fake)
    found = step.loss(formulas, chosen)
    total = sum(term.loss for term in base + fake + rectify) / step.counts.total
    assert_equal(found, formulas, total, online, own, step.counts.total)
    if fake:
        assert found.metrics.values["loss_fake"] == pytest.approx(
            np.mean([term.loss for term in fake]), rel=1e-10
        )


@pytest.mark.parametrize("recipe", ["the authors'", "bundled", "bundled, clamped"])
def test_the_metrics_of_the_differences_are_those_of_the_equations(recipe: str) -> None:
    chosen = options(**RECIPES[recipe])
    step, formulas = make_step(chosen, EVERY_ROLE), Formulas.make()
    by_hand = ByHand(step, formulas, chosen)
    errors = np.stack([by_hand.error(i) for i in range(by_hand.real) if by_hand.is_recursive(i)])
    differences = np.stack([by_hand.difference(i)[0] for i in range(step.counts.one_step)])
    found = step.loss(formulas, chosen).metrics.values
    clamped = {"rcgm_clamped": errors, "rectify_clamped": differences}
    for name, values in clamped.items():
        share = float(np.mean(np.abs(values) >= 1))
        # By neither clamp is all of it held, nor nothing, nor as much as is left.
        assert 0 < share < 1
        assert share != 0.5
        assert found[name] == pytest.approx(share, rel=1e-12)
    by_row = np.sqrt(np.mean(differences**2, axis=tuple(range(1, differences.ndim))))
    assert found["velocity_difference"] == pytest.approx(np.mean(by_row), rel=1e-10)
