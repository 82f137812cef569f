"""What the tests by hand share: a network that is one formula, the loss of one row, and a step's draws, in float64.

Nothing of `flow/` is called here. A formula is written twice, in tensors for the product and in NumPy for the test.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.training.test_twinflow_objective import OPTIONS
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.objectives import make_objective
from twinflow_core.training.roles import ROLES, RoleCounts
from twinflow_core.training.step import Batch, MicroBatch, Networks, StepLoss
from twinflow_core.training.twinflow_draws import StepDraws

# Large enough that some differences of two velocities reach the clamps at 1, and others do not.
HEIGHT = 2.5
ONLINE, AVERAGED = (0.7, 0.9, -0.3, 0.5), (0.6, 0.5, -0.2, 0.4)
BASE, OWN = (0.5, 0.9, 0.0, 0.6), (-0.4, 0.3, 0.0, 0.2)


class Formula:
    """F(x_t, t, r; c) = 2.5 tanh(a x + b t + d r) + e c, odd and even in nothing; no r counts as r = 0."""

    def __init__(self, weights: tuple[float, ...] | Tensor) -> None:
        self.weights = weights

    def __call__(self, x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        a, b, d, e = self.weights
        assert conditioning.pooled is not None
        times = b * t if r is None else b * t + d * r
        return HEIGHT * torch.tanh(a * x_t + column(times)) + e * column(conditioning.pooled[:, 0])

    @property
    def numbers(self) -> list[float]:
        return torch.as_tensor(self.weights, dtype=torch.float64).tolist()

    def of_row(self, x: np.ndarray, t: float, r: float, c: float) -> np.ndarray:
        a, b, d, e = self.numbers
        value: np.ndarray = HEIGHT * np.tanh(a * x + b * t + d * r) + e * c
        return value

    def slopes(self, x: np.ndarray, t: float, r: float, c: float) -> np.ndarray:
        """Its derivatives by a, b, d and e, [4, *x.shape]."""
        rise = self._rise(x, t, r)
        return np.stack([x * rise, t * rise, r * rise, np.full_like(x, c)])

    def along_path(self, x: np.ndarray, t: float, r: float, v: np.ndarray) -> np.ndarray:
        """dF/dt where x moves with v and r stays."""
        a, b, _, _ = self.numbers
        value: np.ndarray = (a * v + b) * self._rise(x, t, r)
        return value

    def _rise(self, x: np.ndarray, t: float, r: float) -> np.ndarray:
        a, b, d, _ = self.numbers
        value: np.ndarray = HEIGHT * (1 - np.tanh(a * x + b * t + d * r) ** 2)
        return value


def column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Formulas:
    """Four networks that differ; gradients of each would be seen in its weights, [4]."""

    online: Formula
    averaged: Formula
    base: Formula
    own: Formula

    @staticmethod
    def make() -> Formulas:
        each = (ONLINE, AVERAGED, BASE, OWN)
        return Formulas(
            *[Formula(torch.tensor(one, dtype=torch.float64, requires_grad=True)) for one in each]
        )

    def networks(self, options: FinetuneParams) -> Networks:
        """Those of them that the options ask for."""
        base = self.base if options.needs_base else None
        return Networks(self.online, self.averaged, base, self.own if options.has_fake_score else None)

    def guided(
        self, x_t: np.ndarray, v: np.ndarray, t: float, c: float, options: FinetuneParams
    ) -> np.ndarray:
        """v*: v + w (F(c) - F(empty)) of the average, with the base's F(c) in place of v where a base is asked."""
        w = options.guidance
        if w == 0:
            return v
        if options.real_velocity == "base":
            return self.guided_base(x_t, t, c, w)
        return v + w * (self.averaged.of_row(x_t, t, t, c) - self.averaged.of_row(x_t, t, t, 0.0))

    def guided_base(self, x_t: np.ndarray, t: float, c: float, w: float) -> np.ndarray:
        """c + w (c - empty); the base knows no r."""
        conditional, empty = (self.base.of_row(x_t, t, 0.0, each) for each in (c, 0.0))
        return conditional + w * (conditional - empty)


@dataclass(frozen=True)
class Term:
    """One row of a loss: its weight, prediction minus target, and the prediction's derivatives by the weights.

    The target is held fixed. A robust term is Barron's loss at alpha = 1 and c = 1e-3: the mean square over a scale
    that is held fixed, too. Another is the mean square itself.
    """

    weight: float
    residual: np.ndarray
    slopes: np.ndarray
    robust: bool = True

    @property
    def loss(self) -> float:
        return self.weight * float(np.mean(self.residual**2)) / self._scale

    @property
    def gradient(self) -> np.ndarray:
        """[4], by a, b, d and e."""
        each = (self.slopes * self.residual).reshape(4, -1).mean(axis=1)
        value: np.ndarray = 2 * self.weight * each / self._scale
        return value

    @property
    def _scale(self) -> float:
        return float(np.sqrt(np.mean(self.residual**2) / 1e-6 + 1) * 1e-3) if self.robust else 1.0


@dataclass(frozen=True)
class Step:
    """A batch and its draws as tensors; as NumPy the draws, the latents `x` and the prompts `c`."""

    batch: Batch
    draws: StepDraws
    counts: RoleCounts

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        drawn = {field.name: getattr(self.draws, field.name).numpy() for field in fields(self.draws)}
        assert self.batch.conditioning.pooled is not None
        return drawn | {"x": self.batch.x.numpy(), "c": self.batch.conditioning.pooled[:, 0].numpy()}

    def loss(self, formulas: Formulas, options: FinetuneParams) -> StepLoss:
        """The product's."""
        rows = MicroBatch(self.batch, self.draws, self.counts, self.counts)
        return make_objective(options).loss(formulas.networks(options), rows, 0)


def make_step(
    options: FinetuneParams, rows: tuple[int, ...], shape: tuple[int, ...] = (2, 3, 2), seed: int = 0
) -> Step:
    """A step with so many rows of each role that the objective has; its times are drawn here, by the roles' rules."""
    generator = torch.Generator().manual_seed(seed)

    def normal(count: int) -> Tensor:
        return torch.randn((count, *shape), generator=generator, dtype=torch.float64)

    def uniform(count: int) -> Tensor:
        return 0.02 + 0.96 * torch.rand(count, generator=generator, dtype=torch.float64)

    played = make_objective(options).roles
    counts = RoleCounts(**{role: n * (role in played) for role, n in zip(ROLES, rows, strict=True)})
    one, near, some, fake = (uniform(getattr(counts, role)) for role in ROLES)
    gap, share = uniform(len(near)), uniform(len(some))
    draws = StepDraws(
        z=normal(counts.total),
        t=torch.cat([torch.ones_like(one), near, some, -fake]),
        r=torch.cat([torch.zeros_like(one), near * (1 - 0.05 * gap), some * share, -fake]),
        fake_z=normal(counts.total if options.data_free else counts.fake),
        rectify_z=normal(counts.one_step),
        rectify_t=one,
    )
    prompts = torch.randn((counts.total, 1), generator=generator, dtype=torch.float64)
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    batch = Batch(
        normal(counts.total),
        Conditioning(torch.zeros(counts.total, 1, 1), prompts),
        Conditioning(torch.zeros(1, 1, 1), nothing),
    )
    return Step(batch, draws, counts)


def options(**changed: Any) -> FinetuneParams:
    """OPTIONS with some values changed, and checked."""
    return FinetuneParams.model_validate({**OPTIONS.model_dump(), **changed})


def assert_equal(
    found: StepLoss, formulas: Formulas, loss: float, online: list[Term], own: list[Term], rows: int
) -> None:
    """The product's loss, and its gradients in the two networks in training, are these terms'; no other has one.

    Args:
        found: the product's.
        formulas: the networks that it was found with.
        loss: by hand.
        online: the terms through the online network, their weights over the mean of all rows.
        own: those through the fakes' own network.
        rows: in all.
    """
    found.loss.backward()
    np.testing.assert_allclose(float(found.loss.detach()), loss, rtol=1e-10)
    for formula, terms in ((formulas.online, online), (formulas.own, own)):
        expected = sum((term.gradient for term in terms), np.zeros(4)) / rows
        np.testing.assert_allclose(gradient(formula), expected, rtol=1e-9, atol=1e-11)
    assert not gradient(formulas.averaged).any()
    assert not gradient(formulas.base).any()


def gradient(formula: Formula) -> np.ndarray:
    """By a, b, d and e; zero where there is none."""
    assert isinstance(formula.weights, Tensor)
    grad = formula.weights.grad
    return np.zeros(4) if grad is None else grad.numpy()
