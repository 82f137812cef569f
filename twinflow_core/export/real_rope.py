"""Rotary embeddings in real numbers while tracing: ONNX has no complex ones.

Qwen-Image and Z-Image turn pairs of features by multiplying them as complex numbers. The same turn is written here
with cosines and sines; the angles are the models' own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.transformers import transformer_qwenimage
from torch import Tensor, nn
from torch.nn import functional

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.packing import pack, unpack


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Features [B, S, H, 2 D] turned pair by pair by `angles` [.., S, 1, D, 2]: their cosines and sines."""
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = angles.unbind(-1)
    return torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=-1).flatten(
        3
    )


class _KnownAngles(nn.Module):
    """In place of Qwen's table of complex numbers: the angles for one size, looked up when first asked for."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self._stock = [stock]
        self._known: dict[str, tuple[Tensor, Tensor]] = {}

    def forward(self, img_shapes: Any, max_txt_seq_len: int, device: Any = None) -> tuple[Tensor, Tensor]:
        """Angles [S, 1, D, 2] of the image's tokens and the text's."""
        size = f"{img_shapes[0]} {int(max_txt_seq_len)}"
        if size not in self._known:
            image, text = self._stock[0]([img_shapes[0]], max_txt_seq_len=max_txt_seq_len, device=device)
            self._known[size] = (
                torch.view_as_real(image).unsqueeze(1).clone(),
                torch.view_as_real(text).unsqueeze(1).clone(),
            )
        return self._known[size]


@contextmanager
def qwen_in_real_numbers(backbone: Backbone) -> Iterator[None]:
    """Let a Qwen-Image transformer turn in real numbers; it must run once before it is traced, at its one size."""
    transformer = backbone.pipeline.transformer
    stock, turn = transformer.pos_embed, transformer_qwenimage.apply_rotary_emb_qwen
    transformer.pos_embed = _KnownAngles(stock)
    transformer_qwenimage.apply_rotary_emb_qwen = lambda x, angles, use_real: turned(x, angles)
    try:
        yield
    finally:
        transformer.pos_embed = stock
        transformer_qwenimage.apply_rotary_emb_qwen = turn


def qwen_of_any_batch(backbone: Backbone) -> Callable[[Tensor, Tensor, Conditioning], Tensor]:
    """The backbone's denoiser told of one image's shape: it looks at the first alone, and a list of as many as there
    are rows would make a constant of the batch."""
    transformer = backbone.pipeline.transformer

    def denoise(x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        height, width = x_t.shape[2:]
        tokens = transformer(
            hidden_states=pack(x_t),
            timestep=t,
            encoder_hidden_states=conditioning.prompt_embeds,
            encoder_hidden_states_mask=conditioning.mask,
            img_shapes=[[(1, height // 2, width // 2)]],
            return_dict=False,
        )[0]
        return unpack(tokens, height, width)

    return denoise


class RealAttention:
    """Z-Image's attention with real turns: an attention processor of diffusers."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: Tensor | None = None,
    ) -> Tensor:
        """Attention of [B, S, W] to itself; the mask is [B, S], angles [B, S, 1, D, 2]."""
        query, key, value = (
            layer(hidden_states).unflatten(-1, (attn.heads, -1))
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        if freqs_cis is not None:
            query, key = turned(query, freqs_cis), turned(key, freqs_cis)
        mask = None if attention_mask is None else attention_mask[:, None, None, :]
        attended = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask
        )
        output: Tensor = attn.to_out[0](attended.transpose(1, 2).flatten(2))
        return output
