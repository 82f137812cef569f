"""CUDA's choices on tensors without data: which operations autocast shortens, which attention kernel runs.

Tensors on the meta device know neither. The lists are those of `ATen/autocast_mode.h` for CUDA, cut to what
diffusers' transformers call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

SHORTENED: frozenset[Any] = frozenset(
    {
        F.linear, F.conv2d, torch.conv2d, torch.matmul, torch.bmm, torch.addmm, torch.baddbmm, torch.mm, torch.einsum,
        F.scaled_dot_product_attention, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.bmm,
    }
)  # fmt: skip
LENGTHENED: frozenset[Any] = frozenset(
    {
        F.layer_norm, torch.layer_norm, F.rms_norm, torch.rms_norm, F.group_norm, F.softmax, torch.softmax,
        Tensor.softmax, torch.exp, torch.rsqrt, torch.pow, Tensor.pow, Tensor.__pow__, Tensor.exp, Tensor.rsqrt,
        torch.sum, Tensor.sum, Tensor.cumsum, torch.cumsum, F.mse_loss,
    }
)  # fmt: skip


class CudaRules(TorchFunctionMode):
    """Emulates autocast to bfloat16 (where asked), the attention kernels and the fused root-mean-square norm.

    Leave it before the backward pass, which would hide it from blocks that run a second time: a checkpoint enters
    it again by itself if made with `checkpointed`.

    Attributes:
        autocast: whether matrix products run in bfloat16.
        cache: shortened weights that autocast keeps until its block ends; None outside of one.
    """

    def __init__(self, autocast: bool) -> None:
        super().__init__()
        self.autocast = autocast
        self.cache: dict[int, Tensor] | None = {}

    def leave_autocast(self) -> None:
        """Autocast's block ends, and with it its shortened weights. What runs later is a block's second forward."""
        self.cache = None

    def checkpointed(self, block: Any, *args: Any) -> Any:
        """Run a block so that the backward pass runs it again, under these rules both times."""
        return checkpoint(block, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), self))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.autocast and func in SHORTENED:
            args, kwargs = (
                _each(args, self._short),
                {key: self._short(value) for key, value in kwargs.items()},
            )
        elif self.autocast and func in LENGTHENED:
            args, kwargs = _each(args, _long), {key: _long(value) for key, value in kwargs.items()}
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func in (F.rms_norm, torch.rms_norm):
            return _fused_rms_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def _short(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        cacheable = (
            self.cache is not None and value.requires_grad and value.is_leaf and torch.is_grad_enabled()
        )
        if not cacheable:
            return value.to(torch.bfloat16)
        assert self.cache is not None
        if id(value) not in self.cache:
            self.cache[id(value)] = value.to(torch.bfloat16)
        return self.cache[id(value)]


def _long(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def _each(args: tuple[Any, ...], change: Callable[[Any], Any]) -> tuple[Any, ...]:
    return tuple(
        [change(one) for one in arg] if isinstance(arg, (list, tuple)) else change(arg) for arg in args
    )


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """CUDA's kernel: flash without a mask in short floats, else the memory-efficient one."""
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if attn_mask is None and query.dtype != torch.float32:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    bias = None
    if attn_mask is not None:
        bias = attn_mask.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(query, key, value, bias, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale)[0]


class _FusedRmsNorm(torch.autograd.Function):
    """Shapes alone of CUDA's kernel, which keeps its input and one number a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, x.new_empty((*x.shape[:-1], 1)))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), None if weight is None else torch.empty_like(weight)


def _fused_rms_norm(
    x: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    normalised: Tensor = _FusedRmsNorm.apply(x, weight)
    return normalised
