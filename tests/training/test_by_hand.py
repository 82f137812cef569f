"""Every loss term against the paper's equations (arXiv 2512.05150 v2), written out row by row in float64.

Nothing of `flow/` is called here: the network is a scalar formula, each row is plain NumPy. What the paper leaves
to the authors' code (the clamps at 1, the robust distance, the weight in time, the guided target) is written out too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.test_twinflow_objective import OPTIONS, SHAPE
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.training.roles import RoleCounts
from twinflow_core.training.twinflow_draws import StepDraws, draw_step
from twinflow_core.training.twinflow_objective import Batch, Networks, twinflow_loss

COUNTS = RoleCounts(one_step=2, near=1, any=2, fake=2)
REAL = COUNTS.total - COUNTS.fake
ONLINE, AVERAGED = (0.7, 0.4, -0.3, 0.5), (0.6, 0.5, -0.2, 0.4)
Weights = tuple[float, float, float, float]


class Formula:
    """F(x_t, t, r; c) = tanh(a x + b t + d r) + e c, odd and even in nothing."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def __call__(self, x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        a, b, d, e = self.weights
        assert r is not None
        inner = a * x_t + (b * t + d * r).view(-1, 1, 1, 1)
        return torch.tanh(inner) + e * conditioning.pooled.view(-1, 1, 1, 1)

    def of_row(self, x: np.ndarray, t: float, r: float, c: float) -> np.ndarray:
        a, b, d, e = self.weights
        return np.tanh(a * x + b * t + d * r) + e * c


@dataclass(frozen=True)
class Term:
    """A row's weight and its prediction minus its target."""

    weight: float
    residual: np.ndarray

    @property
    def _scale(self) -> float:
        # Barron's alpha = 1 with c = 1e-3: the mean square over this, which is held fixed.
        return float(np.sqrt(np.mean(self.residual**2) / 1e-6 + 1) * 1e-3)

    @property
    def loss(self) -> float:
        return self.weight * float(np.mean(self.residual**2)) / self._scale

    @property
    def pull(self) -> np.ndarray:
        """d loss / d prediction."""
        return self.weight * 2 * self.residual / self.residual.size / self._scale


class ByHand:
    """The loss of one batch, row by row."""

    def __init__(self, batch: Batch, draws: StepDraws, order: int) -> None:
        self.x, self.c = batch.x.numpy(), batch.conditioning.pooled.numpy()[:, 0]
        self.draws = {field.name: getattr(draws, field.name).numpy() for field in fields(draws)}
        self.online, self.averaged = Formula(ONLINE), Formula(AVERAGED)
        self.order = order

    def base_row(self, i: int) -> Term:
        """L_base, eq. 1, with v* in place of dx_t/dt where 0 < t < 1."""
        t, r, z, c = self.draws["t"][i], self.draws["r"][i], self.draws["z"][i], self.c[i]
        x_t = t * z + (1 - t) * self.x[i]
        v = z - self.x[i]
        if t < 1:
            with_prompt = self.averaged.of_row(x_t, t, t, c)
            without = self.averaged.of_row(x_t, t, t, 0.0)
            v = v + OPTIONS.guidance * (with_prompt - without)
        prediction = self.online.of_row(x_t, t, r, c)
        small = min(OPTIONS.delta, t - r)
        state, time = x_t - small * v, t - small
        jumps = np.zeros_like(state)
        for k in range(self.order):
            until = (t - small) + (r - (t - small)) * (k + 1) / self.order
            jump = (time - until) * self.averaged.of_row(state, time, until, c)
            jumps, state, time = jumps + jump, state - jump, until
        # f(x_t, r) = x_r - x_t is minus the displacement; eq. 1 divided by the small step.
        error = (
            prediction - v if t - r <= OPTIONS.delta else ((t - r) * prediction - jumps - small * v) / small
        )
        return Term(np.tan((1 - (t - r)) * np.pi / 2.5) + 1, np.clip(error, -1, 1))

    def fake_row(self, i: int) -> Term:
        """L_adv, eq. 2."""
        number = i - (COUNTS.total - COUNTS.fake)
        z = self.draws["fake_z"][number]
        fake = z - self.online.of_row(z, 1.0, 0.0, self.c[i])
        fresh, minus_t = self.draws["z"][i], self.draws["t"][i]
        mixed = -minus_t * fresh + (1 + minus_t) * fake
        prediction = self.online.of_row(mixed, minus_t, minus_t, self.c[i])
        return Term(OPTIONS.adversarial_weight, prediction - (fresh - fake))

    def rectify_row(self, i: int) -> Term:
        """L_rectify, eq. 7 and 9."""
        z, c = self.draws["z"][i], self.c[i]
        output = self.online.of_row(z, 1.0, 0.0, c)
        t = self.draws["rectify_t"][i]
        mixed = t * self.draws["rectify_z"][i] + (1 - t) * (z - output)
        difference = self.online.of_row(mixed, t, t, c) - self.online.of_row(mixed, -t, -t, c)
        return Term(1.0, -np.clip(difference, -1, 1))

    def row(self, i: int) -> Term:
        """The row's own term, without rectification."""
        return self.base_row(i) if i < REAL else self.fake_row(i)

    def total(self) -> float:
        """Eq. 10."""
        rows = [self.row(i).loss for i in range(COUNTS.total)]
        rectify = [self.rectify_row(i).loss for i in range(COUNTS.one_step)]
        return float(np.mean(rows) + OPTIONS.rectify_weight * np.mean(rectify))

    def slope(self, i: int) -> np.ndarray:
        """dF/da of the row's prediction."""
        t, r, z, x = self.draws["t"][i], self.draws["r"][i], self.draws["z"][i], self.x[i]
        if i >= REAL:
            noise = self.draws["fake_z"][i - REAL]
            x = noise - self.online.of_row(noise, 1.0, 0.0, self.c[i])
        x_t = abs(t) * z + (1 - abs(t)) * x
        a, b, d, _ = ONLINE
        return x_t * (1 - np.tanh(a * x_t + b * t + d * r) ** 2)

    def gradient(self) -> float:
        """Eq. 10 differentiated by a, every target held fixed."""
        rows = [np.vdot(self.row(i).pull, self.slope(i)) for i in range(COUNTS.total)]
        rectify = [np.vdot(self.rectify_row(i).pull, self.slope(i)) for i in range(COUNTS.one_step)]
        return float(np.mean(rows) + OPTIONS.rectify_weight * np.mean(rectify))


def double_batch() -> Batch:
    generator = torch.Generator().manual_seed(3)
    return Batch(
        torch.randn((COUNTS.total, *SHAPE), generator=generator, dtype=torch.float64),
        Conditioning(
            torch.zeros(COUNTS.total, 1, 1),
            torch.randn((COUNTS.total, 1), generator=generator, dtype=torch.float64),
        ),
        Conditioning(torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.float64)),
    )


def double_draws(step: int) -> StepDraws:
    draws = draw_step(0, step, COUNTS, SHAPE)
    return StepDraws(**{field.name: getattr(draws, field.name).double() for field in fields(draws)})


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_the_loss_is_that_of_the_equations(order: int, step: int) -> None:
    batch, draws = double_batch(), double_draws(step)
    networks = Networks(Formula(ONLINE), Formula(AVERAGED), None)
    options = OPTIONS.model_copy(update={"order": order})
    result = twinflow_loss(networks, batch, draws, COUNTS, options)
    by_hand = ByHand(batch, draws, order)
    assert float(result.loss) == pytest.approx(by_hand.total(), rel=1e-12)
    one_step, fake = range(COUNTS.one_step), range(REAL, COUNTS.total)
    assert result.metrics["loss_one_step"] == pytest.approx(mean(by_hand.row, one_step), rel=1e-12)
    assert result.metrics["loss_fake"] == pytest.approx(mean(by_hand.row, fake), rel=1e-12)
    assert result.metrics["rectify"] == pytest.approx(mean(by_hand.rectify_row, one_step), rel=1e-12)


def test_a_normalised_rectification_is_distribution_matching_on_the_one_step_images() -> None:
    batch, draws = double_batch(), double_draws(0)
    real, online = Formula((0.5, 0.3, 0.0, 0.6)), Formula(ONLINE)
    base = Networks(online, Formula(AVERAGED), lambda x, t, r, c: real(x, t, torch.zeros_like(t), c))
    options = OPTIONS.model_copy(update={"rectify_target": "normalised", "real_velocity": "base"})
    result = twinflow_loss(base, batch, draws, COUNTS, options)
    lost = []
    for i in range(COUNTS.one_step):
        z, c, t = draws.z[i].numpy(), float(batch.conditioning.pooled[i, 0]), float(draws.rectify_t[i])
        renoise = draws.rectify_z[i].numpy()
        x = z - online.of_row(z, 1.0, 0.0, c)
        mixed = t * renoise + (1 - t) * x
        with_prompt, without = real.of_row(mixed, t, 0.0, c), real.of_row(mixed, t, 0.0, 0.0)
        guided = with_prompt + options.guidance * (with_prompt - without)
        knows = np.mean(np.abs(guided - (renoise - x)))
        pull = (guided - online.of_row(mixed, -t, -t, c)) / knows
        lost.append(np.mean(pull**2))
    assert result.metrics["rectify"] == pytest.approx(float(np.mean(lost)), rel=1e-12)


def mean(term: Callable[[int], Term], rows: range) -> float:
    return float(np.mean([term(i).loss for i in rows]))


def test_the_gradient_is_that_of_the_loss_with_its_targets_held_fixed() -> None:
    batch, draws = double_batch(), double_draws(0)
    online = Formula(ONLINE)
    a = torch.tensor(ONLINE[0], dtype=torch.float64, requires_grad=True)
    online.weights = (a, *ONLINE[1:])  # type: ignore[assignment]
    networks = Networks(online, Formula(AVERAGED), None)
    twinflow_loss(networks, batch, draws, COUNTS, OPTIONS).loss.backward()
    assert a.grad is not None
    assert float(a.grad) == pytest.approx(ByHand(batch, draws, OPTIONS.order).gradient(), rel=1e-12)
