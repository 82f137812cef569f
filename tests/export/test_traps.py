"""What an exporter breaks in silence or refuses, each with its cure, and the proof that the cure is still needed."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from diffusers.models.attention_processor import Attention, SanaLinearAttnProcessor2_0
from diffusers.models.transformers import transformer_qwenimage
from torch import Tensor, nn
from torch.nn import functional

from twinflow_core.export import onnx_model
from twinflow_core.export.onnx_model import export_model
from twinflow_core.export.real_rope import turned

WIDTH = 8


class LinearAttention(nn.Module):
    """Sana's own, which divides by a sum plus 1e-15."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        processor = SanaLinearAttnProcessor2_0()
        self.attention = Attention(WIDTH, heads=2, dim_head=4, bias=False, processor=processor)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


class MaskedAttention(nn.Module):
    """Attention whose mask is the same for every query, as Sana, Qwen-Image and Z-Image pass it."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(x, x, x, attn_mask=mask[:, None, None, :])


class PaddedInFront(nn.Module):
    """Causal attention to what counts: padding in front of a text sees nothing."""

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        causal = torch.ones(x.shape[2], x.shape[2], dtype=torch.bool).tril()
        return functional.scaled_dot_product_attention(x, x, x, attn_mask=causal & counts[:, None, None, :])


class Turn(nn.Module):
    """Qwen-Image's rotary embedding."""

    def __init__(self, real: bool) -> None:
        super().__init__()
        angles = torch.arange(12.0).reshape(3, 4)
        self.real = real
        self.stock = torch.polar(torch.ones_like(angles), angles)
        self.angles = torch.view_as_real(self.stock).unsqueeze(1).clone()

    def forward(self, x: Tensor) -> Tensor:
        if self.real:
            return turned(x, self.angles)
        return transformer_qwenimage.apply_rotary_emb_qwen(x, self.stock, use_real=False)


def run(model: ir.Model, *given: Tensor) -> np.ndarray:
    content = ir.to_proto(model).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, {name: value.numpy() for name, value in zip(names, given, strict=True)})[0]


def linear_attention_of_zeros() -> np.ndarray:
    zeros = torch.zeros(2, 4, WIDTH)
    return run(export_model(LinearAttention(), {"x": zeros}, ["y"], 20), zeros)


def test_a_vanishing_epsilon_stays() -> None:
    assert np.isfinite(linear_attention_of_zeros()).all()


def test_without_the_cure_the_epsilon_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "_small_numbers_count", nullcontext)
    assert np.isnan(linear_attention_of_zeros()).all()


def masked_attention(opset: int) -> tuple[np.ndarray, np.ndarray]:
    x = torch.randn(2, 2, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    model = export_model(MaskedAttention(), {"x": x, "mask": mask}, ["y"], opset)
    return run(model, x, mask), MaskedAttention()(x, mask).numpy()


@pytest.mark.parametrize("opset", [20, 23])
def test_a_mask_for_all_queries_masks(opset: int) -> None:
    served, expected = masked_attention(opset)
    np.testing.assert_allclose(served, expected, atol=1e-5)


def test_without_the_cure_the_mask_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "_masks_by_query", nullcontext)
    with pytest.raises(Exception, match="q_sequence_length"):
        masked_attention(23)


def padded_in_front(opset: int) -> tuple[np.ndarray, np.ndarray]:
    x = torch.randn(2, 2, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([[False, False, True, True], [True, True, True, True]])
    model = export_model(PaddedInFront(), {"x": x, "counts": counts}, ["y"], opset)
    return run(model, x, counts), PaddedInFront()(x, counts).numpy()


@pytest.mark.parametrize("opset", [20, 23])
def test_what_sees_nothing_gets_zeros(opset: int) -> None:
    served, expected = padded_in_front(opset)
    np.testing.assert_array_equal(expected[0, :, :2], 0)
    np.testing.assert_allclose(served, expected, atol=1e-5)


def test_without_the_cure_what_sees_nothing_gets_a_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "_blind_queries_get_zeros", nullcontext)
    served, expected = padded_in_front(20)
    assert np.abs(served - expected)[0, :, :2].max() > 0.1


def test_real_turns_are_the_complex_ones() -> None:
    x = torch.randn(2, 3, 2, WIDTH, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Turn(real=True)(x), Turn(real=False)(x), atol=1e-6, rtol=0)
    model = export_model(Turn(real=True), {"x": x}, ["y"], 20)
    np.testing.assert_allclose(run(model, x), Turn(real=False)(x).numpy(), atol=1e-6)


def test_without_the_cure_complex_turns_are_refused() -> None:
    with pytest.raises(Exception, match=r"(?i)complex|onnx"):
        export_model(Turn(real=False), {"x": torch.randn(2, 3, 2, WIDTH)}, ["y"], 20)
