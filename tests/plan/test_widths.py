"""Bytes a value that the plan counts, against the real optimizers and quantised layers at work."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from twinflow_core.backbones.quantized import Kind, QuantizedLinear
from twinflow_core.plan.setting import (
    BYTES,
    MADE_ANEW_BYTES,
    MOMENT_BYTES,
    QUANTIZED_BYTES,
    UPDATE_BYTES,
    Number,
    Optimizer,
)
from twinflow_core.plan.storage_ledger import StorageLedger
from twinflow_core.training.lean_adamw import LeanAdamW

SIDE = 512
VALUES = SIDE**2
# The formats' tables and single numbers, which do not grow.
REST = 0.3


def bytes_of(tensors: list[Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


@pytest.mark.parametrize(
    ("optimizer", "weights"), [("adamw", "bfloat16"), ("adamw_8bit", "float32"), ("adamw_8bit", "bfloat16")]
)
def test_an_update_takes_what_the_plan_says(optimizer: Optimizer, weights: Number) -> None:
    kind = torch.bfloat16 if weights == "bfloat16" else torch.float32
    weight = nn.Parameter(torch.randn(SIDE, SIDE).to(kind))
    weight.grad = torch.randn_like(weight)
    made = LeanAdamW([weight], 1e-3, (0.9, 0.99), optimizer == "adamw_8bit", seed=0)
    made.step()
    held = [value for value in made.state[weight].values() if value.dim()]
    kept = bytes_of(held)
    assert kept / VALUES == MOMENT_BYTES[optimizer]
    assert weight.element_size() == BYTES[weights]
    ledger = StorageLedger([weight, weight.grad, *held])
    with ledger:
        made.step()
    assert ledger.peak / VALUES == pytest.approx(UPDATE_BYTES[optimizer, weights], abs=REST)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_weight_takes_what_the_plan_says(kind: Kind) -> None:
    layer = QuantizedLinear(nn.Linear(SIDE, SIDE), kind)
    scales = SIDE * 4 if kind == "int8" else 0
    assert bytes_of([layer.codes, layer.scales]) - scales == VALUES * QUANTIZED_BYTES[kind]
    ledger = StorageLedger([layer.codes, layer.scales])
    with ledger, torch.no_grad():
        layer.weight.to(torch.bfloat16)
    # What indexing itself makes, eight bytes an index, is not seen from outside.
    hidden = 8 if kind == "nf4" else 0
    assert ledger.peak / VALUES + hidden == pytest.approx(MADE_ANEW_BYTES[kind], abs=REST)
