"""Muon: momentum made orthogonal, for the hidden matrices; all matrices of one shape at once, in float32.

`torch.optim.Muon` takes one matrix at a time in bfloat16, which a CPU without matrix units does slowly; stacking
equal shapes turns hundreds of small products into a few batched ones. Newton-Schulz coefficients: Keller Jordan,
"Muon" (2024).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import nn

_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


def orthogonalise(stack: torch.Tensor) -> torch.Tensor:
    """The nearest thing to an orthogonal matrix in five Newton-Schulz steps, for each matrix of a stack.

    Args:
        stack: float32 [N, rows, columns] with rows <= columns.

    Returns:
        The same shape; singular values lie roughly in [0.7, 1.2].
    """
    x = stack / stack.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled by sqrt(rows / columns) where that is above one.

    Args:
        params: two-dimensional parameters only.
        lr: step size; 0.02 moves entries about as AdamW at 0.002 does.
        momentum: in [0, 1).
        weight_decay: decoupled, multiplied by the rate.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = closure() if closure else None
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    low, high = sorted(parameter.shape)
                    by_shape[low, high].append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group["lr"], group["momentum"], group["weight_decay"])
        return loss

    def _update(self, parameters: list[nn.Parameter], lr: float, momentum: float, decay: float) -> None:
        directions = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            gradient = cast(torch.Tensor, parameter.grad)
            buffer = state["momentum"].lerp_(gradient, 1 - momentum)
            direction = gradient.lerp(buffer, momentum)
            directions.append(direction if direction.shape[0] <= direction.shape[1] else direction.mT)
        for parameter, update in zip(parameters, orthogonalise(torch.stack(directions)), strict=True):
            rows, columns = parameter.shape
            parameter.mul_(1 - lr * decay)
            scale = math.sqrt(max(1.0, rows / columns))
            parameter.add_(update if rows <= columns else update.mT, alpha=-lr * scale)
