"""Counts of real models, memory by part, what fits, and the real objective's cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.plan_table import ONE_NETWORK
from tests.plan.test_trace import SMALL
from twinflow_core.backbones.lora import add_lora
from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.image_size import ImageSize
from twinflow_core.params import load_params
from twinflow_core.plan.document import plan_document
from twinflow_core.plan.families import FAMILIES
from twinflow_core.plan.gpus import GIB, Gpu, find_gpu, parse_size
from twinflow_core.plan.memory import CONTEXT, UNUSABLE
from twinflow_core.plan.named_models import PlannedModel, model_in, model_names, named_model
from twinflow_core.plan.parameters import count_parameters
from twinflow_core.plan.plan import Plan, make_plan
from twinflow_core.plan.search import candidates
from twinflow_core.plan.setting import Setting, refusal, setting_of
from twinflow_core.plan.step_calls import equivalents_a_row, training_calls, validation_calls
from twinflow_core.plan.trace import build

REPOSITORY = Path(__file__).parents[2]
# One network, which is what low-rank and quantised weights are for.
OPTIONS = load_params(REPOSITORY / "params.yaml").finetune.model_copy(update=ONE_NETWORK)
# What the models' publishers say, in billions.
PUBLISHED = {
    "sd3.5-medium": 2.24, "sd3.5-large": 8.06, "sana-0.6b": 0.592, "sana-1.6b": 1.604, "qwen-image": 20.43,
    "z-image": 6.15, "flux.1-dev": 11.9, "flux.2-dev": 32.2, "flux.2-klein-4b": 3.88, "flux.2-klein-9b": 9.08,
}  # fmt: skip
# Two blocks, the fewest that are run: nothing is extrapolated, which test_trace is about.
TINY = PlannedModel("tiny", SMALL["sana"][0], {**SMALL["sana"][1], "num_layers": 2}, 0, "here")
SQUARE = ImageSize(512, 512)
BIG = Gpu("big", 80 * GIB, 100, 50, 1e12)


def options(**changed: Any) -> FinetuneParams:
    """The repository's, with some values changed, and checked."""
    return FinetuneParams.model_validate({**OPTIONS.model_dump(), **changed})


def tiny_plan(gpu: Gpu, setting: Setting | None = None, size: ImageSize = SQUARE, **changed: Any) -> Plan:
    told = options(batch_size=8, validate_every=0, **changed)
    return make_plan(TINY, told, setting or setting_of(told), gpu, size)


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_models_have_their_published_size(name: str) -> None:
    parameters = count_parameters(named_model(name))
    assert parameters.transformer / 1e9 == pytest.approx(PUBLISHED[name], rel=0.003)


def test_every_named_model_is_checked() -> None:
    assert set(model_names()) == set(PUBLISHED)


@pytest.mark.parametrize("small", ["sd3", "sana"])
def test_low_rank_weights_are_counted_as_peft_makes_them(small: str) -> None:
    class_name, config = SMALL[small]
    counted = count_parameters(PlannedModel("", class_name, config, 0, ""))
    network = build(class_name, config)
    add_lora(network, 4, 0, FAMILIES[class_name].lora_layers)
    made = sum(each.numel() for each in network.parameters() if each.requires_grad)
    assert 4 * counted.lora_a_rank == made


@pytest.mark.parametrize(
    ("changed", "cost"),
    [
        ({}, 6.25),
        ({"near_target": "velocity"}, 5.75),
        ({"fakes": "shared"}, 6.0),
        ({"one_step_target": "rectified"}, 5.75),
        ({"objective": "flow_matching"}, 5.0),
        ({"objective": "meanflow"}, 6.0),
        ({"objective": "meanflow", "meanflow": {"derivative": "forward_mode"}}, 6.0),
        ({"objective": "vsd"}, 5.0),
        ({"fake_velocity": "own", "real_velocity": "base"}, 6.5),
    ],
)
def test_cost_of_a_row_is_that_of_the_objectives_page(changed: dict[str, Any], cost: float) -> None:
    equal = {"one_step": 1, "near": 1, "any": 1, "fake": 1}
    told = options(
        batch_size=16, shares=equal, order=2, guidance=0.8, **{"real_velocity": "online", **changed}
    )
    assert equivalents_a_row(training_calls(told, 1, 1), 16) == cost


def test_validation_takes_the_parts_of_a_step_without_gradient() -> None:
    told = options(batch_size=16)
    parts = validation_calls(told, 1, 4)
    assert len(parts) == 4
    assert not any(call.gradient for part in parts for call in part)
    trained = training_calls(told, 1, 4)[0]
    most = [max(call.rows for part in calls for call in part) for calls in (parts, trained)]
    assert most[0] == most[1]
    assert validation_calls(options(validate_every=0), 1, 1) == []


def test_a_process_has_its_part_of_every_role_filled_up() -> None:
    told = options(batch_size=16, shares={"one_step": 6, "near": 4, "any": 3, "fake": 3})
    step = training_calls(told, 4, 1)[0]
    # 2 + 1 + 1 + 1 rows where 16 / 4 would be 4.
    assert max(call.rows for part in step for call in part if call.gradient) == 5


def test_the_setting_is_that_of_params_yaml() -> None:
    told = options(
        batch_size=6, accumulation=2, lora_rank=8, gradient_checkpointing=True, weights="bfloat16",
        optimizer="adamw_8bit", quantized_base="nf4",
    )  # fmt: skip
    assert setting_of(told) == Setting(6, 2, 1, 8, True, "bfloat16", "bfloat16", "adamw_8bit", "nf4")
    launched = options(launch={"processes": 2, "nodes": 3})
    assert setting_of(launched).processes == 6
    assert setting_of(launched, 4).processes == 4


def test_nothing_is_proposed_that_the_training_refuses() -> None:
    several = Setting(batch_size=8, processes=2)
    assert not refusal(OPTIONS, several)
    for few_bits in (
        replace(several, optimizer="adamw_offload"),
        replace(several, optimizer="adamw_8bit", weights="bfloat16"),
        replace(several, lora_rank=4, quantized_base="nf4"),
    ):
        assert refusal(OPTIONS, few_bits) == ""
    assert refusal(options(objective="vsd"), several) == ""
    forward_mode = {"objective": "meanflow", "meanflow": {"derivative": "forward_mode"}}
    assert "one process" in refusal(options(**forward_mode), several)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_low_rank_second_network_in_shards_has_a_part_of_the_base_for_itself(processes: int) -> None:
    setting = Setting(batch_size=8, processes=processes)
    own = {"fake_velocity": "own", "fake_score": {"weights": "lora", "rank": 4}}
    one, two = (tiny_plan(BIG, setting, **each).asked.memory for each in ({"real_velocity": "base"}, own))
    parameters = count_parameters(TINY)
    low_rank = 4 * parameters.lora_a_rank
    frozen = parameters.transformer if processes == 2 else 0
    assert (two.base - one.base) * processes == pytest.approx(4 * (low_rank + frozen), abs=processes)
    assert (two.optimizer - one.optimizer) * processes == pytest.approx(8 * low_rank, abs=processes)


@pytest.mark.slow
def test_parts_that_do_not_depend_on_rows_follow_from_the_parameters() -> None:
    parameters = count_parameters(TINY)
    trained = parameters.transformer + parameters.target_time
    tables = 4 * parameters.buffers
    memory = tiny_plan(BIG).asked.memory
    assert memory.weights == memory.average == 4 * trained + tables
    assert memory.base == 4 * trained + tables
    assert memory.optimizer == 8 * trained
    alive = memory.activations + memory.gradients
    assert memory.other == CONTEXT + int(UNUSABLE * alive)
    assert memory.total == sum(memory.parts().values())


@pytest.mark.slow
def test_low_rank_training_shares_its_frozen_weights_and_trains_little() -> None:
    full, low = tiny_plan(BIG).asked, tiny_plan(BIG, lora_rank=2).asked
    assert low.trainable < full.trainable / 2
    assert low.memory.base < full.memory.base / 2
    assert low.memory.optimizer == 8 * low.trainable


@pytest.mark.slow
def test_shards_divide_what_stays_and_gather_what_runs() -> None:
    alone = tiny_plan(BIG).asked.memory
    shared = tiny_plan(BIG, Setting(batch_size=8, processes=4)).asked.memory
    for part in ("weights", "optimizer", "average", "base"):
        assert getattr(shared, part) == pytest.approx(getattr(alone, part) / 4, rel=1e-3), part
    assert alone.gathered == 0 < shared.gathered
    assert shared.activations < alone.activations


def test_offloaded_moments_lie_with_the_cpu() -> None:
    made = tiny_plan(BIG, Setting(batch_size=8, optimizer="adamw_offload")).asked
    assert made.memory.optimizer == 0
    assert made.memory.host == 16 * made.trainable


def test_what_fits_as_asked_is_left_as_it_is() -> None:
    made = tiny_plan(BIG)
    assert made.asked.fits
    assert made.cheapest is made.asked
    assert made.more_gpus is None


@pytest.mark.slow
def test_a_smaller_gpu_first_keeps_the_numbers_and_then_rounds() -> None:
    asked = tiny_plan(BIG).asked
    memory = asked.memory
    kept = tiny_plan(replace(BIG, memory=memory.total - memory.activations // 2)).cheapest
    assert kept is not None
    assert kept.fits
    assert kept.setting.accumulation > 1 or kept.setting.checkpointing
    assert (kept.setting.weights, kept.setting.lora_rank) == ("float32", 0)
    nothing = tiny_plan(replace(BIG, memory=CONTEXT // 2))
    assert nothing.cheapest is None
    assert nothing.more_gpus is None


def test_no_candidate_takes_more_parts_than_rows() -> None:
    for group in candidates(Setting(batch_size=6, accumulation=4)):
        assert group
        assert all(4 <= each.accumulation <= 6 for each in group)


def test_another_shape_of_the_same_tokens_needs_the_same_and_more_tokens_more() -> None:
    square, wide = tiny_plan(BIG), tiny_plan(BIG, size=ImageSize(1024, 256))
    assert wide.asked.memory.activations == square.asked.memory.activations
    assert wide.asked.duration == square.asked.duration
    assert plan_document(wide)["size"] == "1024x256"
    assert tiny_plan(BIG, size=ImageSize(1024, 512)).asked.memory.total > square.asked.memory.total


def test_hours_and_images_agree() -> None:
    duration = tiny_plan(BIG).asked.duration
    rows = 8 * OPTIONS.steps
    for images, hours in zip(duration.images_per_second, duration.hours, strict=True):
        assert images * hours * 3600 == pytest.approx(rows)
    assert duration.equivalents == pytest.approx(duration.equivalents_a_row * rows)


def test_a_document_says_what_changed() -> None:
    memory = tiny_plan(BIG).asked.memory
    made = tiny_plan(replace(BIG, memory=memory.total - memory.activations // 2))
    document = plan_document(made)
    assert document["asked"]["changes"] == {}
    assert document["cheapest"]["changes"]
    assert document["measured"] is None


@pytest.mark.parametrize(("text", "size"), [("80GiB", 80 * GIB), ("24 GB", 24 * 10**9), ("512mib", 2**29)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_wrong_input_is_named(tmp_path: Path) -> None:
    for wrong in (
        lambda: find_gpu("abacus"),
        lambda: find_gpu("h100-80", "much"),
        lambda: named_model("nothing"),
        lambda: model_in(tmp_path),
        lambda: make_plan(TINY, OPTIONS, setting_of(OPTIONS), BIG, ImageSize(512, 500)),
        lambda: make_plan(TINY, OPTIONS, Setting(batch_size=2, processes=4), BIG, SQUARE),
    ):
        with pytest.raises(TwinflowError) as raised:
            wrong()
        assert raised.value.fix
