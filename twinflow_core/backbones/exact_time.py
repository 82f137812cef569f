"""Exact times for families that shorten them: some transformers cast t to bfloat16 before its sinusoids.

In [0.5, 1) bfloat16 knows steps of 1/256 alone, while recursive consistency divides by a step of `delta`
(0.01): the difference quotient would be wrong by tens of percent. In float32 nothing changes, to the bit.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class ExactTime(nn.Module):
    """Gives the sinusoidal layer the time that was set, in place of the one that the transformer passes.

    Args:
        time_proj: the transformer's layer of sinusoids.

    State: `time` is None (the hook does nothing) or the [B] float32 tensor that `time_proj` is to see, scaled
    as the transformer would pass it. It is used up by the next call alone: where guidance is embedded by the
    same layer, time comes first. Not safe for two threads on one model.
    """

    def __init__(self, time_proj: nn.Module) -> None:
        super().__init__()
        self.time: Tensor | None = None
        time_proj.register_forward_pre_hook(self._replace)

    def _replace(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.time is None:
            return None
        exact, self.time = self.time, None
        return (exact, *arguments[1:])
