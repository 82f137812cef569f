"""The check of the plan against a GPU, as far as a CPU goes: every line of a case but CUDA's own counters."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks.plan_check.__main__ import all_cases, main, run_apart
from benchmarks.plan_check.case import Case, measure
from twinflow_core.errors import ExitCode


@pytest.fixture(autouse=True)
def same_determinism_after() -> object:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("case", [Case("sana-1.6b", 0, False, True), Case("sd3.5-medium", 4, False, True)])
def test_a_case_trains_a_small_shape_and_says_what_the_plan_says(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.plan_check.case.MEASURED", 2)
    monkeypatch.setattr("benchmarks.plan_check.case.ROUNDS", 1)
    found = measure(case)
    planned, measured = found["planned"], found["measured"]
    assert 0 < planned["allocated_gib"] < planned["total_gib"]
    assert planned["flops_a_step"] > 1e6
    assert planned["images_a_second_slow"] < planned["images_a_second_fast"]
    assert measured["images_a_second"] == pytest.approx(found["batch"] / measured["seconds_a_step"], rel=0.01)
    assert (measured["mfu"], measured["peak_gib"], measured["peak_over_plan"]) == (None, None, None)
    assert found["plain_step_over_ours"] > 0


def test_the_cases_are_both_shapes_all_weights_and_low_rank_eager_before_compiled() -> None:
    cases = all_cases("", tiny=False)
    assert len({case.name for case in cases}) == 8
    assert [case.compiled for case in cases] == [False] * 4 + [True] * 4
    assert [case.name for case in all_cases("sana-1.6b, LoRA 64, c", tiny=False)] == [
        "sana-1.6b, LoRA 64, compiled"
    ]


def test_a_case_that_the_time_does_not_reach_says_so() -> None:
    assert run_apart(Case("sana-1.6b", 0, True, True), 0) == {"failed": "out of time"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_ends_with_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["plan_check"])
    assert main() == ExitCode.WRONG_INPUT
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("There is no CUDA GPU")
    assert "to do:" in shown.err
