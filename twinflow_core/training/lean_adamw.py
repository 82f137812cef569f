"""AdamW in little memory: moments in eight bits, weights in bfloat16 rounded by chance, each if asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from twinflow_core.training.draws import generator
from twinflow_core.training.eight_bit import dequantize, quantize
from twinflow_core.training.rounding import stochastic_bfloat16
from twinflow_core.training.sharding import first_row, local, rows_like

EPSILON = 1e-8
# Below this a tensor's moments stay in float32: biases and norms cost nothing and bear rounding least. So do those of
# short rows, such as a depthwise kernel's, each of which would have a scale of its own.
LEAST_VALUES = 4096
LEAST_ROW = 64
MOMENTS = {"mean": True, "square": False}


class LeanAdamW(torch.optim.Optimizer):
    """AdamW without weight decay; every update is computed in float32, one tensor at a time.

    Of a tensor that is sharded by rows each rank updates its own, to the bits that it would get in one process.

    Args:
        groups: parameters, float32 or bfloat16; a bfloat16 one is written by `stochastic_bfloat16`.
        lr: the learning rate.
        betas: of the two moments.
        eight_bit: keep the moments of large tensors in eight bits (2 bytes a parameter in place of 8).
        seed: of the rounding. Its draws come from (seed, step, tensor), so that a resumed run rounds as one that
            was not killed; on CUDA they are CUDA's own and differ from the CPU's.
    """

    def __init__(
        self, groups: ParamsT, lr: float, betas: tuple[float, float], eight_bit: bool, seed: int
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas})
        self.eight_bit = eight_bit
        self.seed = seed

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Any) -> float: ...

    @torch.no_grad()
    def step(self, closure: Any = None) -> float | None:
        """Update every parameter that has a gradient."""
        for number, (group, parameter) in enumerate(self._parameters()):
            if parameter.grad is not None:
                self._update(number, group, parameter, local(parameter.grad).float())
        return None

    def _update(self, number: int, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        state = self.state[parameter]
        state["step"] = state.get("step", torch.zeros(())) + 1
        step = int(state["step"])
        beta_mean, beta_square = group["betas"]
        mean = self._moment(state, "mean", gradient).lerp_(gradient, 1 - beta_mean)
        square = self._moment(state, "square", gradient).lerp_(gradient.square(), 1 - beta_square)
        size = (square / (1 - beta_square**step)).sqrt_().add_(EPSILON)
        held = local(parameter)
        weight = held.float().addcdiv(mean, size, value=-group["lr"] / (1 - beta_mean**step))
        self._keep(state, "mean", mean, parameter)
        self._keep(state, "square", square, parameter)
        if parameter.dtype == torch.bfloat16:
            chance = generator(self.seed, step, f"rounding {number}", held.device)
            weight = stochastic_bfloat16(weight, chance, parameter.shape, first_row(parameter))
        held.copy_(weight)

    def _moment(self, state: dict[str, Any], name: str, like: Tensor) -> Tensor:
        """This rank's moment in float32, to be changed in place; zeros before the first step."""
        if f"{name}_codes" in state:
            codes, scales = local(state[f"{name}_codes"]), local(state[f"{name}_scales"])
            return dequantize(codes, scales, MOMENTS[name], like.shape)
        return local(state[name]) if name in state else torch.zeros_like(like)

    def _keep(self, state: dict[str, Any], name: str, moment: Tensor, parameter: Tensor) -> None:
        if self.eight_bit and parameter.numel() >= LEAST_VALUES and parameter.shape[1:].numel() >= LEAST_ROW:
            codes, scales = quantize(moment, MOMENTS[name])
            state[f"{name}_codes"] = rows_like(codes, parameter)
            state[f"{name}_scales"] = rows_like(scales, parameter)
        else:
            state[name] = rows_like(moment, parameter)

    def _parameters(self) -> Iterable[tuple[dict[str, Any], Tensor]]:
        return ((group, parameter) for group in self.param_groups for parameter in group["params"])

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, bit for bit: torch's own way casts every tensor to its parameter's type."""
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        for number, (_, parameter) in enumerate(self._parameters()):
            saved = state_dict["state"].get(number, {})
            self.state[parameter] = {
                # The count stays where it is asked for.
                name: value.to("cpu" if name == "step" else parameter.device, copy=True)
                for name, value in saved.items()
            }
