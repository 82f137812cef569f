"""F(x_t, t, r): one calling convention for the transformers of all families."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.lora import LAYERS
from twinflow_core.backbones.target_time import TargetTime


class Velocity(nn.Module, ABC):
    """A diffusers transformer as a velocity. Copy this module, never the transformer alone: its hook is here.

    Args:
        transformer: stays as it is, but for the hook.
        host: the MLP in it that embeds time, which the target time is added to.

    Attributes:
        lora_layers: ends of the names of the layers that low-rank weights are put on.
        weight_type: what latents and prompts are cast to for the transformer, or None if they go in as they are.
    """

    lora_layers: ClassVar[tuple[str, ...]] = LAYERS
    weight_type: torch.dtype | None = None

    def __init__(self, transformer: Any, host: Any) -> None:
        super().__init__()
        self.transformer = transformer
        self.target_time = TargetTime(host)

    def forward(self, x_t: Tensor, t: Tensor, r: Tensor | None, conditioning: Conditioning) -> Tensor:
        """The velocity z - x, [B, C, H, W], in the type of x_t even where the layers run in a shorter one.

        Args:
            x_t: latents [B, C, H, W].
            t: times [B] in [-1, 1], 1 being noise.
            r: target times [B], or None for the stock network (which equals r = 0).
            conditioning: the prompts of the B rows.
        """
        self.target_time.r = r
        if self.weight_type is None:
            return self.predict(x_t, t, conditioning).to(x_t.dtype)
        short = conditioning.in_type(self.weight_type)
        return self.predict(x_t.to(self.weight_type), t, short).to(x_t.dtype)

    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Call the transformer in its own convention: scale and sign of time, packing, masks, output's sign."""

    def copy(self) -> Self:
        """A copy with a hook of its own and without gradients; it shares buffers and the parameters that are frozen."""
        shared: dict[int, Any] = {id(p): p for p in self.parameters() if not p.requires_grad}
        shared |= {id(buffer): buffer for buffer in self.buffers()}
        twin = copy.deepcopy(self, shared)
        return twin.requires_grad_(False).eval()

    def independent_copy(self) -> Self:
        """A copy that shares nothing, without gradients."""
        return copy.deepcopy(self).requires_grad_(False)

    def for_another_thread(self) -> Self:
        """These very weights under modules of their own, so that two threads do not share a hook's state."""
        shared: dict[int, Any] = {id(each): each for each in (*self.parameters(), *self.buffers())}
        return copy.deepcopy(self, shared)
