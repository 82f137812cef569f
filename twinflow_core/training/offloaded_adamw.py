"""AdamW in the CPU's memory: moments and a float32 copy of the weights lie there, and the update runs there."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT


class OffloadedAdamW(torch.optim.Optimizer):
    """torch's AdamW on float32 copies of the parameters; these get the result, rounded to their own type.

    Where the parameters are in bfloat16 the copies hold what rounding takes away, so nothing is lost. Gradients
    are taken from the device after they were clipped, and freed there.

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
        for parameter, master in zip(self._parameters(), self.masters, strict=True):
            if parameter.grad is not None:
                master.grad = parameter.grad.to("cpu", torch.float32)
                parameter.grad = None
        self.host.step()
        for parameter, master in zip(self._parameters(), self.masters, strict=True):
            if master.grad is not None:
                parameter.copy_(master)
        self.host.zero_grad(set_to_none=True)
        return None

    def state_dict(self) -> dict[str, Any]:
        """The moments, and the copies of those parameters that are not in float32 themselves."""
        pairs = enumerate(zip(self._parameters(), self.masters, strict=True))
        masters = {i: master.detach() for i, (p, master) in pairs if p.dtype != torch.float32}
        return {"host": self.host.state_dict(), "masters": masters}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; the parameters must have been loaded before."""
        self.host.load_state_dict(state_dict["host"])
        for number, (parameter, master) in enumerate(zip(self._parameters(), self.masters, strict=True)):
            master.copy_(state_dict["masters"].get(number, parameter))

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]


def _master(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().to("cpu", torch.float32, copy=True))
