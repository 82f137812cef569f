"""Moments in eight bits: close in ratio, never zero where they must not be, 2 bytes and a little a parameter."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from twinflow_core.training.eight_bit import BLOCK, dequantize, quantize

LARGEST_ERROR = {True: 10 ** (5 / 126 / 2) - 1, False: 10 ** (7 / 255 / 2) - 1}


def there_and_back(values: Tensor, signed: bool) -> Tensor:
    rows = values if values.dim() > 1 else values[None]
    return dequantize(*quantize(rows, signed), signed, rows.shape).view(values.shape)


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
    codes, scales = quantize(torch.rand(8, 4, BLOCK // 2), signed=False)
    assert codes.nbytes + scales.nbytes == 8 * 2 * BLOCK * (1 + 4 / BLOCK)
    # A block more, and all blocks of a row as large as they must be.
    codes, scales = quantize(torch.rand(8, 2 * BLOCK + 3), signed=False)
    assert codes.shape == (8, 3, 172)
    assert scales.shape == (8, 3, 1)


@given(st.integers(0, 9), st.integers(0, 9), st.booleans())
@settings(max_examples=20, deadline=None)
def test_rows_come_out_alike_alone_and_among_others(first: int, last: int, signed: bool) -> None:
    values = torch.rand(9, 5, 70, generator=torch.Generator().manual_seed(0))
    rows = slice(min(first, last), max(first, last))
    for alone, whole in zip(quantize(values[rows], signed), quantize(values, signed), strict=True):
        assert alone.equal(whole[rows])
    alike = dequantize(*quantize(values[rows], signed), signed, values[rows].shape)
    assert alike.equal(there_and_back(values, signed)[rows])
