"""AdamW on what is trained: the network, and beside it a fake score of its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.lean_adamw import LeanAdamW
from twinflow_core.training.offloaded_adamw import OffloadedAdamW

# The factor of a parameter group on the run's learning rate.
FACTOR = "factor"


def make_optimizer(
    online: nn.Module, fake_score: nn.Module | None, options: FinetuneParams
) -> torch.optim.Optimizer:
    """One optimiser without weight decay; the fake score has its own rate.

    Args:
        online: the network; only parameters that require a gradient are taken.
        fake_score: the second network, or None.
        options: rates and averages, and where and in how many bits the optimiser's own state is kept.
    """
    groups = [{"params": trained(online), FACTOR: 1.0}]
    if fake_score is not None:
        groups.append({"params": trained(fake_score), FACTOR: options.fake_score.learning_rate_factor})
    if options.optimizer == "adamw_offload":
        return OffloadedAdamW(groups, options.learning_rate, options.betas)
    eight_bit = options.optimizer == "adamw_8bit"
    if eight_bit or options.weights == "bfloat16":
        return LeanAdamW(groups, options.learning_rate, options.betas, eight_bit, options.seed)
    return torch.optim.AdamW(
        groups, lr=options.learning_rate, betas=options.betas, weight_decay=0.0, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its factor of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[FACTOR]


class GradientNorms(NamedTuple):
    """Norms of gradients before clipping; that of the fake score is None where there is none."""

    online: float
    fake_score: float | None

    def named(self) -> list[tuple[str, float]]:
        """Each norm with whose it is, in words."""
        own = [] if self.fake_score is None else [("the second network", self.fake_score)]
        return [("the model", self.online), *own]

    def logged(self) -> dict[str, float]:
        """The columns of the training log."""
        own = {} if self.fake_score is None else {"fake_gradient_norm": self.fake_score}
        return {"gradient_norm": self.online, **own}


def clip_gradients(online: nn.Module, fake_score: nn.Module | None, largest: float) -> GradientNorms:
    """Clip the norm of the network's gradient, and of the fake score's apart from it."""
    return GradientNorms(_clip(online, largest), None if fake_score is None else _clip(fake_score, largest))


def _clip(network: nn.Module, largest: float) -> float:
    return _whole(torch.nn.utils.clip_grad_norm_(trained(network), largest, foreach=True))


def _whole(norm: Tensor) -> float:
    """The norm over all ranks, where the gradient is sharded."""
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def trained(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
