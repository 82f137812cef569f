"""At its optimum no objective pulls, off it each pulls back: the losses themselves, on Gaussian data.

The networks are the closed forms of `tests/flow/gaussian.py` with something to learn added. Rows are pictures whose
elements are the grid of two standard normal draws, of mean 0, deviation 1 and no correlation exactly, so that the mean
over a row is an expectation over the draws wherever the difference from the target is linear in them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.flow.gaussian import Gaussian, column
from tests.training.by_hand import options
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.training.objectives import make_objective
from twinflow_core.training.roles import ROLES, Role, RoleCounts
from twinflow_core.training.step import Batch, MicroBatch, Networks
from twinflow_core.training.twinflow_draws import StepDraws

DATA, EMPTY, GUIDANCE = Gaussian(0.3, 0.6), Gaussian(-0.2, 0.9), 0.8
NOTHING = Conditioning(torch.zeros(1, 1, 1), torch.zeros(1, 1))
SIDE = 8
OFF = 0.05
times = st.floats(0.1, 0.95)
deviations = st.floats(0.3, 1.5)


def grid(rows: int) -> tuple[Tensor, Tensor]:
    """Two independent draws for every row, [rows, 1, SIDE, SIDE] each."""
    points = torch.special.ndtri((torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE)
    points = points / points.square().mean().sqrt()
    first, second = torch.meshgrid(points, points, indexing="ij")
    return first.expand(rows, 1, SIDE, SIDE), second.expand(rows, 1, SIDE, SIDE)


def guided_velocity(x_t: Tensor, t: Tensor) -> Tensor:
    with_prompt, without = DATA.velocity(x_t, t), EMPTY.velocity(x_t, t)
    return with_prompt + GUIDANCE * (with_prompt - without)


def closed_form(x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
    """The exact map of the data under the prompt 1, of other data under the empty one, 0; the velocity for no r."""
    r = t if r is None else r
    assert conditioning.pooled is not None
    prompted = column(conditioning.pooled) > 0
    return torch.where(prompted, DATA.flow_map(x_t, t, r), EMPTY.flow_map(x_t, t, r))


@dataclass
class Student:
    """A network whose one-step images are N(mean, deviation^2), and whose velocities are off by o + s x_t.

    At negative times, and where it is a network of the fakes' own (`of_fakes`), the velocity is that of its images.
    """

    mean: float = DATA.mean
    deviation: float = DATA.deviation
    guided: bool = False
    of_fakes: bool = False
    off: tuple[float, float] = (0.0, 0.0)
    images: Tensor = field(init=False)
    errors: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.images = torch.tensor([self.mean, self.deviation], dtype=torch.float64, requires_grad=True)
        self.errors = torch.tensor(self.off, dtype=torch.float64, requires_grad=True)

    def __call__(self, x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        off = self.errors[0] + self.errors[1] * x_t
        fakes = Gaussian(self.mean, self.deviation).velocity(x_t, t.abs()) + off
        if self.of_fakes:
            return fakes
        assert r is not None
        real = guided_velocity(x_t, t) if self.guided else closed_form(x_t, t, r, conditioning)
        one_step = x_t - (self.images[0] + self.images[1] * x_t)
        whole = column((t == 1) & (r == 0))
        return torch.where(whole, one_step, torch.where(column(t < 0), fakes, real + off))


def pull(
    chosen: dict[str, Any], role: Role, student: Student, at: tuple[float, ...], own: Student | None = None
) -> None:
    """The expected gradient of the objective on rows of one role, left in the students' tensors.

    Args:
        chosen: options that differ from the tests' usual ones.
        role: that of every row.
        student: the network in training.
        at: where each row looks, in (0, 1): its t', where it is of one_step or fake, else its t.
        own: the network of the fakes.
    """
    asked, t = options(**chosen), torch.tensor(at, dtype=torch.float64)
    counts = RoleCounts(**{name: len(t) * (name == role) for name in ROLES})
    from_t = {"one_step": torch.ones_like(t), "near": t, "any": t, "fake": -t}[role]
    to_r = {"one_step": torch.zeros_like(t), "near": 0.98 * t, "any": t / 3, "fake": -t}[role]
    first, second = grid(len(t))
    made = len(t) if asked.data_free else counts.fake
    draws = StepDraws(first, from_t, to_r, second[:made], second[: counts.one_step], t[: counts.one_step])
    prompts = Conditioning(torch.zeros(len(t), 1, 1), torch.ones(len(t), 1))
    batch = Batch(DATA.mean + DATA.deviation * second, prompts, NOTHING)
    networks = Networks(student, closed_form, closed_form if asked.needs_base else None, own)
    make_objective(asked).loss(networks, MicroBatch(batch, draws, counts, counts), 0).loss.backward()


def gradient(values: Tensor) -> list[float]:
    assert values.grad is not None
    return [float(value) for value in values.grad]


BASE = {"real_velocity": "base", "guidance": GUIDANCE}
VELOCITIES: dict[str, tuple[dict[str, Any], Role]] = {
    "flow matching": ({"objective": "flow_matching", "guidance": GUIDANCE}, "near"),
    "flow matching on the base": ({"objective": "flow_matching"} | BASE, "near"),
    "near velocity": ({"near_target": "velocity", "guidance": GUIDANCE}, "near"),
    "near velocity on the base": ({"near_target": "velocity"} | BASE, "near"),
    "data-free": ({"near_target": "velocity", "data_free": True} | BASE, "near"),
    "adversarial": ({}, "fake"),
    "adversarial, by a network of its own": ({"fake_velocity": "own"} | BASE, "fake"),
    "vsd's fake score": ({"objective": "vsd"}, "fake"),
    "meanflow": ({"objective": "meanflow", "guidance": 0.0, "meanflow": {"step": 1e-6}}, "any"),
    "meanflow, exact": (
        {"objective": "meanflow", "guidance": 0.0, "meanflow": {"derivative": "forward_mode"}},
        "any",
    ),
}


@pytest.mark.parametrize("case", VELOCITIES)
@given(st.tuples(times, times, times), st.floats(-1, 1), deviations)
@settings(max_examples=10, deadline=None)
def test_a_velocity_is_learnt_without_bias(
    case: str, at: tuple[float, ...], mean: float, deviation: float
) -> None:
    chosen, role = VELOCITIES[case]

    def learnt(off: tuple[float, float]) -> list[float]:
        student = Student(mean, deviation, guided=role == "near", off=off)
        own = Student(mean, deviation, of_fakes=True, off=off) if options(**chosen).has_fake_score else None
        pull(chosen, role, student, at, own)
        return gradient((own or student).errors)

    assert learnt((0.0, 0.0)) == pytest.approx([0, 0], abs=2e-4)
    assert learnt((OFF, 0.0))[0] > 1e-3
    assert learnt((-OFF, 0.0))[0] < -1e-3
    assert learnt((0.0, OFF))[1] > 1e-3
    assert learnt((0.0, -OFF))[1] < -1e-3


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@given(st.tuples(times, times, times))
@settings(max_examples=10, deadline=None)
def test_recursive_consistency_of_any_order_pulls_towards_the_flow_map(
    order: int, at: tuple[float, ...]
) -> None:
    def learnt(off: float) -> float:
        student = Student(off=(off, 0.0))
        pull({"order": order, "guidance": 0.0, "delta": 1e-5}, "any", student, at)
        return gradient(student.errors)[0]

    assert learnt(0.0) == pytest.approx(0, abs=1e-3)
    assert learnt(1e-4) > 0.1
    assert learnt(-1e-4) < -0.1


OWN = {"real_velocity": "base", "fake_velocity": "own", "one_step_target": "rectified", "guidance": 0.0}
GENERATORS: dict[str, dict[str, Any]] = {
    "one network": {"rectify_target": "clamped", "one_step_target": "rectified"},
    "one network, normalised": {"rectify_target": "normalised", "one_step_target": "rectified"},
    "a base and a network of the fakes' own": OWN | {"rectify_target": "clamped"},
    "the bundled": OWN | {"rectify_target": "normalised"},
    "vsd": {"objective": "vsd", "guidance": 0.0},
}


@pytest.mark.parametrize("case", GENERATORS)
@given(st.tuples(times, times, times))
@settings(max_examples=10, deadline=None)
def test_one_step_images_are_pulled_to_the_data(case: str, at: tuple[float, ...]) -> None:
    def learnt(mean: float, deviation: float) -> list[float]:
        student = Student(mean, deviation)
        own = Student(mean, deviation, of_fakes=True) if options(**GENERATORS[case]).has_fake_score else None
        pull(GENERATORS[case], "one_step", student, at, own)
        return gradient(student.images)

    assert learnt(DATA.mean, DATA.deviation) == pytest.approx([0, 0], abs=1e-9)
    assert learnt(DATA.mean + OFF, DATA.deviation)[0] > 1e-4
    assert learnt(DATA.mean - OFF, DATA.deviation)[0] < -1e-4
    assert learnt(DATA.mean, DATA.deviation + OFF)[1] > 1e-4
    assert learnt(DATA.mean, DATA.deviation - OFF)[1] < -1e-4


@dataclass
class OneVelocity:
    """A network that answers every question with the same number."""

    value: Tensor

    def __call__(self, x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        return self.value.expand_as(x_t)


def prompted_image(x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
    """A velocity whose one-step image is the prompt's number everywhere."""
    assert conditioning.pooled is not None
    return x_t - column(conditioning.pooled[:, 0])


@pytest.mark.parametrize("objective", ["twinflow", "vsd"])
@given(st.integers(1, 7), times)
@settings(max_examples=20, deadline=None)
def test_a_network_of_the_fakes_own_learns_the_mean_of_two_kinds_of_image(
    objective: str, dark: int, time: float
) -> None:
    """At one x_t lie images of -1 and of 1, and the velocity is the mean over both, however rare one of them is."""
    kinds = torch.tensor([-1.0] * dark + [1.0] * (8 - dark), dtype=torch.float64)
    t = torch.full_like(kinds, time)
    velocities = -kinds / time
    fresh = column(velocities + kinds).expand(8, 1, SIDE, SIDE)
    counts = RoleCounts(one_step=0, near=0, any=0, fake=8)
    noise = torch.zeros_like(fresh)
    draws = StepDraws(fresh, -t, -t, noise, noise[:0], t[:0])
    batch = Batch(noise, Conditioning(torch.zeros(8, 1, 1), kinds[:, None]), NOTHING)
    chosen = make_objective(options(**OWN, objective=objective))

    def learnt(off: float) -> float:
        value = (velocities.mean() + off).requires_grad_(True)
        networks = Networks(prompted_image, closed_form, closed_form, OneVelocity(value))
        chosen.loss(networks, MicroBatch(batch, draws, counts, counts), 0).loss.backward()
        assert value.grad is not None
        return float(value.grad)

    assert learnt(0.0) == pytest.approx(0, abs=1e-9)
    assert learnt(OFF) > 1e-3
    assert learnt(-OFF) < -1e-3
