"""A provider is taken because it works here, and passed over with a reason."""

from __future__ import annotations

import pytest

from twinflow_core.errors import TwinflowError
from twinflow_core.runtime.providers import (
    CPU,
    CUDA,
    SHORT_NAMES,
    TENSORRT,
    ProviderChoice,
    choose_provider,
    why_not,
    with_fallback,
)


def test_auto_takes_the_first_that_works_and_says_why_not_the_others() -> None:
    choice = choose_provider("auto")
    order = [TENSORRT, CUDA, CPU]
    assert [name for name, _ in choice.skipped] == order[: order.index(choice.name)]
    assert all(reason for _, reason in choice.skipped)
    assert why_not(choice.name) is None


def test_the_cpu_always_works() -> None:
    assert choose_provider("cpu").name == CPU
    assert choose_provider("cpu").skipped == ()


def test_a_provider_that_did_not_start_is_passed_over_with_its_reason() -> None:
    failed = {TENSORRT: "it did not start", CUDA: "nor did this"}
    assert choose_provider("auto", failed) == ProviderChoice(CPU, tuple(failed.items()))


def test_what_tensorrt_lacks_runs_on_cuda() -> None:
    assert [name for name, _ in with_fallback(TENSORRT, {"trt_cuda_graph_enable": "1"})] == [TENSORRT, CUDA]
    assert with_fallback(CPU, {}) == [(CPU, {})]


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(TwinflowError, match="Unknown provider `gpu`") as caught:
        choose_provider("gpu")
    assert "cuda" in caught.value.fix


@pytest.mark.parametrize("wanted", ["cuda", "tensorrt"])
def test_a_provider_asked_for_by_name_works_or_is_refused_with_its_reason(wanted: str) -> None:
    reason = why_not(SHORT_NAMES[wanted])
    if reason is None:
        assert choose_provider(wanted).name == SHORT_NAMES[wanted]
    else:
        with pytest.raises(TwinflowError, match=reason):
            choose_provider(wanted)
