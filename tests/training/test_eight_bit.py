"""Moments in eight bits: close in ratio, never zero where they must not be, 2 bytes and a little a parameter."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from twinflow_core.training.eight_bit import BLOCK, dequantize, quantize

LARGEST_ERROR = {True: 10 ** (5 / 126 / 2) - 1, False: 10 ** (7 / 255 / 2) - 1}


def there_and_back(values: Tensor, signed: bool) -> Tensor:
    return dequantize(*quantize(values, signed), signed, values.shape)


@given(st.integers(1, 3 * BLOCK), st.booleans(), st.integers(0, 2**31), st.floats(-30, 30))
@settings(max_examples=40, deadline=None)
def test_each_value_keeps_its_sign_and_ratio(size: int, signed: bool, seed: int, power: float) -> None:
    draws = torch.Generator().manual_seed(seed)
    # Two decades within a block: far inside the levels.
    values = 10 ** (power + 2 * torch.rand(size, generator=draws))
    if signed:
        values *= torch.randint(0, 2, (size,), generator=draws) * 2 - 1
    ratio = there_and_back(values, signed) / values
    assert float((ratio - 1).abs().max()) <= LARGEST_ERROR[signed] * 1.01


def test_zeros_stay_zeros_and_a_small_second_moment_never_becomes_one() -> None:
    assert there_and_back(torch.zeros(3, 100), signed=False).eq(0).all()
    assert there_and_back(torch.zeros(3, 100), signed=True).eq(0).all()
    wide = torch.tensor([1.0, 1e-4, 1e-9, 0.0])
    assert there_and_back(wide, signed=False).min() > 0
    assert there_and_back(wide, signed=True)[3] == 0


def test_the_state_of_a_tensor_takes_a_byte_a_value_and_a_scale_a_block() -> None:
    codes, scales = quantize(torch.rand(64, 64), signed=False)
    assert codes.nbytes + scales.nbytes == 64 * 64 * (1 + 4 / BLOCK)
