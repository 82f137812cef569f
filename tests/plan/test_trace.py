"""The trace holds against what autograd really keeps, against whole models, and against torch's own lists."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from twinflow_core.plan.blocks import block_counts
from twinflow_core.plan.cuda_rules import LENGTHENED, SHORTENED
from twinflow_core.plan.families import FAMILIES, Inputs
from twinflow_core.plan.named_models import named_model
from twinflow_core.plan.trace import Calls, Trace, Variant, build, measured, trace_calls

SD3 = {
    "sample_size": 16, "num_attention_heads": 2, "attention_head_dim": 32, "joint_attention_dim": 32,
    "caption_projection_dim": 64, "pooled_projection_dim": 32, "pos_embed_max_size": 16, "in_channels": 4,
    "out_channels": 4, "num_layers": 5, "dual_attention_layers": (0, 1), "qk_norm": "rms_norm",
}  # fmt: skip
SANA = {
    "in_channels": 4, "out_channels": 4, "num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 16,
    "num_cross_attention_heads": 2, "cross_attention_head_dim": 16, "cross_attention_dim": 32,
    "caption_channels": 24, "sample_size": 16,
}  # fmt: skip
FLUX = {
    "in_channels": 16, "num_layers": 3, "num_single_layers": 4, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": 24, "pooled_projection_dim": 24, "axes_dims_rope": (4, 6, 6), "guidance_embeds": True,
}  # fmt: skip
# Of fewer layers its table of positions, which is there but not kept by autograd, would be a tenth.
QWEN = {
    "in_channels": 16, "out_channels": 4, "num_layers": 8, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": 24, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "sd3": ("SD3Transformer2DModel", SD3),
    "sana": ("SanaTransformer2DModel", SANA),
    "flux": ("FluxTransformer2DModel", FLUX),
    "qwen": ("QwenImageTransformer2DModel", QWEN),
}
SIDE, TOKENS = 16, 8
FULL = Variant(0, False, torch.float32, False)
REPEATED = Variant(0, True, torch.float32, False)


@cache
def traced(small: str, variant: Variant) -> Calls:
    """Each trace takes up to seconds; several tests look at the same."""
    return trace_calls(*SMALL[small], variant, SIDE, SIDE, TOKENS)


def really_saved(model: Any, given: dict[str, Any]) -> int:
    """Bytes of the distinct storages that autograd keeps in a real forward on the CPU, weights aside."""
    weights = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    # The graph must live while storages are told apart by address.
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(**given, return_dict=False)[0]
    assert out.requires_grad
    return sum(kept.values())


def on_cpu(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return torch.ones(value.shape, dtype=value.dtype)


@pytest.mark.slow
@pytest.mark.parametrize("small", SMALL)
def test_saved_bytes_are_those_that_autograd_keeps(small: str) -> None:
    class_name, config = SMALL[small]
    model = getattr(diffusers, class_name)(**config).train()
    given = FAMILIES[class_name].call(config, Inputs(2, SIDE, SIDE, TOKENS))
    really = really_saved(model, {key: on_cpu(value) for key, value in given.items()})
    assert traced(small, FULL).at(2).saved == pytest.approx(really, rel=0.1)


# What a checkpointed block keeps, its inputs, passes no hook: it is held against the plain count instead.
@pytest.mark.slow
@pytest.mark.parametrize("small", ["sana", "qwen"])
def test_repeated_blocks_keep_less_and_compute_more(small: str) -> None:
    plain, repeated = traced(small, FULL).at(2), traced(small, REPEATED).at(2)
    assert repeated.saved < 0.5 * plain.saved
    assert repeated.backward < plain.backward
    assert repeated.training_flops > 1.2 * plain.training_flops


# One family has two kinds of blocks, the other one.
@pytest.mark.slow
@pytest.mark.parametrize(("small", "checkpointing", "lora_rank"), [("sd3", True, 0), ("sana", False, 4)])
def test_few_blocks_say_what_all_need(small: str, checkpointing: bool, lora_rank: int) -> None:
    class_name, config = SMALL[small]
    variant = Variant(lora_rank, checkpointing, torch.float32, True)
    model = build(class_name, config, variant)
    whole = Trace(**measured(model, FAMILIES[class_name], variant, Inputs(3, SIDE, SIDE, TOKENS)))
    few = traced(small, variant).at(3)
    assert few.saved == whole.saved
    assert (few.training_flops, few.evaluation_flops) == (whole.training_flops, whole.evaluation_flops)
    for name in ("forward", "backward"):
        assert getattr(few, name) == pytest.approx(getattr(whole, name), rel=0.1), name


def test_a_backward_pass_costs_two_forwards() -> None:
    one = traced("sana", FULL).one
    # Its first layers need no gradient of their input.
    assert 2.8 < one.training_flops / one.evaluation_flops <= 3.05


def test_autocast_lists_are_those_of_torch() -> None:
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    text = header.read_text(encoding="utf-8")
    short, long = text.split("#define AT_FORALL_LOWER_PRECISION_FP")[1].split("#define AT_FORALL_FP32(", 1)
    for names, part in ((SHORTENED, short), (LENGTHENED, long)):
        for function in names:
            plain = function.__name__.strip("_").removeprefix("r")
            assert f"_({plain}" in part or f"_({function.__name__.strip('_')}" in part, function


def test_blocks_of_a_real_model_are_counted_by_kind() -> None:
    for name, counts in (("sd3.5-medium", (13, 11)), ("flux.1-dev", (19, 38)), ("qwen-image", (60,))):
        model = named_model(name)
        assert block_counts(model.config, FAMILIES[model.class_name]) == counts
