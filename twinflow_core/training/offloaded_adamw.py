"""AdamW in the CPU's memory: moments and a float32 copy of the weights lie there, and the update runs there."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from twinflow_core.training.sharding import local, on_host

# The copy of a weight that is not in float32 itself: part of the state, as rounding takes away what it holds.
MASTER = "master"


class OffloadedAdamW(torch.optim.Optimizer):
    """torch's AdamW on float32 copies of the parameters; these get the result, rounded to their own type.

    Where the parameters are in bfloat16 the copies hold what rounding takes away, so nothing is lost. Gradients
    are taken from the device after they were clipped, and freed there. Of a parameter that is sharded each rank keeps
    and updates its own part; the state's tensors lie in the CPU's memory and are sharded as the parameters are.

    Args:
        groups: the parameters on their device.
        lr: the learning rate.
        betas: of the two moments.
    """

    def __init__(self, groups: ParamsT, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas})
        self.masters = [_master(parameter) for parameter in self._parameters()]
        rest = iter(self.masters)
        held = [{"params": [next(rest) for _ in group["params"]]} for group in self.param_groups]
        self.host = torch.optim.AdamW(held, lr=lr, betas=betas, weight_decay=0.0, fused=True)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Any) -> float: ...

    @torch.no_grad()
    def step(self, closure: Any = None) -> float | None:
        """Update every parameter that has a gradient."""
        for group, held in zip(self.param_groups, self.host.param_groups, strict=True):
            held["lr"] = group["lr"]
        for parameter, master in self._pairs():
            if parameter.grad is not None:
                master.grad = local(parameter.grad).to("cpu", torch.float32)
                parameter.grad = None
        self.host.step()
        for parameter, master in self._pairs():
            if master.grad is not None:
                local(parameter).copy_(master)
                self._show(parameter, master)
        self.host.zero_grad(set_to_none=True)
        return None

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; the parameters must have been loaded before.

        torch's own way would move every tensor to its parameter's device and type.
        """
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        for number, (parameter, master) in enumerate(self._pairs()):
            saved = {name: value.clone() for name, value in state_dict["state"].get(number, {}).items()}
            if MASTER in saved:
                master.copy_(saved.pop(MASTER))
            if saved:
                self.host.state[master] = saved
                self._show(parameter, master)
        self.follow_weights()

    @torch.no_grad()
    def follow_weights(self) -> None:
        """Copy the weights that are in float32 themselves anew: they were loaded, and are no part of the state."""
        for parameter, master in self._pairs():
            if parameter.dtype == torch.float32:
                master.copy_(local(parameter))

    def _show(self, parameter: Tensor, master: Tensor) -> None:
        """Let the state of a parameter be what is kept of its copy, in the same memory."""
        if parameter in self.state:
            return
        kept = {
            name: value if name == "step" else on_host(value, parameter)
            for name, value in self.host.state[master].items()
        }
        if parameter.dtype != torch.float32:
            kept[MASTER] = on_host(master.detach(), parameter)
        self.state[parameter] = kept

    def _pairs(self) -> zip[tuple[Tensor, nn.Parameter]]:
        return zip(self._parameters(), self.masters, strict=True)

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]


def _master(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(local(parameter.detach()).to("cpu", torch.float32, copy=True))
