"""What a killed training goes on from: one file of a process that trained alone, shards of many. Each reads both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twinflow_core.training.checkpoint import FILE, load_state, save_state
from twinflow_core.training.offloaded_adamw import OffloadedAdamW
from twinflow_core.training.ranks import Ranks
from twinflow_core.training.sharded_checkpoint import (
    Shards,
    find_shards,
    load_shards,
    remove_shards,
    save_shards,
)
from twinflow_core.training.sharding import put

Log = list[dict[str, float]]


@dataclass(frozen=True)
class Resume:
    """Where a killed run's state lies, and the hash of all that defines the run."""

    folder: Path
    key: str


@dataclass(frozen=True)
class Trained:
    """What changes while training: the network, its average, a fake score of its own, the optimiser's state."""

    online: nn.Module
    averaged: nn.Module
    own: nn.Module | None
    optimizer: torch.optim.Optimizer

    def parts(self) -> dict[str, Any]:
        """State dicts of whole weights."""
        return {
            "online": self.online.state_dict(),
            "averaged": self.averaged.state_dict(),
            "own": self.own.state_dict() if self.own else None,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_parts(self, parts: dict[str, Any]) -> None:
        """Take over what `parts` gave."""
        self.online.load_state_dict(parts["online"])
        self.averaged.load_state_dict(parts["averaged"])
        if self.own:
            self.own.load_state_dict(parts["own"])
        self.optimizer.load_state_dict(parts["optimizer"])

    def averages(self, prefix: str = "averaged.") -> dict[str, Tensor]:
        """The averaged weights that training changes, by names that do not depend on the number of ranks."""
        pairs = zip(self.online.named_parameters(), self.averaged.parameters(), strict=True)
        return {
            f"{prefix}{name}": average.detach() for (name, weight), average in pairs if weight.requires_grad
        }

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that training changes by a name that does not depend on the number of ranks; no frozen one.

        The optimiser's state is made where it has none yet.
        """
        if not self.optimizer.state:
            _start(self.optimizer)
        weights = self.online.named_parameters()
        held = {f"online.{name}": weight.detach() for name, weight in weights if weight.requires_grad}
        held |= self.averages()
        own = self.own.named_parameters() if self.own else ()
        held |= {f"own.{name}": weight.detach() for name, weight in own if weight.requires_grad}
        for number, parameter in enumerate(_parameters(self.optimizer)):
            for name, value in self.optimizer.state[parameter].items():
                held[f"optimizer.{number}.{name}"] = value
        return held


def save_progress(resume: Resume, trained: Trained, step: int, log: Log, ranks: Ranks) -> None:
    """Write the state after `step` finished steps, and remove one of the other kind once it is older.

    Raises:
        InfrastructureError: it cannot be written; the earlier state stays.
    """
    if ranks.mesh is None:
        save_state(resume.folder, resume.key, step, trained.parts() | {"log": log})
        remove_shards(resume.folder)
        return
    save_shards(resume.folder, resume.key, step, trained.tensors(), log, ranks)
    if ranks.first:
        (resume.folder / FILE).unlink(missing_ok=True)


def restore_progress(resume: Resume, trained: Trained, ranks: Ranks) -> tuple[int, Log] | None:
    """Load the newest state of this run; its finished steps and log, or None if there is none.

    Raises:
        TwinflowError: a file is damaged.
    """
    restored = _restored(resume, trained, ranks)
    if isinstance(trained.optimizer, OffloadedAdamW):
        trained.optimizer.follow_weights()
    return restored


def _restored(resume: Resume, trained: Trained, ranks: Ranks) -> tuple[int, Log] | None:
    whole = load_state(resume.folder, resume.key, mapped=ranks.mesh is not None)
    shards = find_shards(resume.folder, resume.key)
    if shards is not None and (whole is None or shards.step > whole[0]):
        return _from_shards(shards, trained, ranks)
    if whole is None:
        return None
    step, parts = whole
    if ranks.mesh is None:
        trained.load_parts(parts)
    else:
        values = _named(parts)
        for name, tensor in trained.tensors().items():
            put(tensor, values[name])
    return step, parts["log"]


def _from_shards(shards: Shards, trained: Trained, ranks: Ranks) -> tuple[int, Log]:
    load_shards(shards, trained.tensors(), ranks)
    return shards.step, shards.log


def _named(parts: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of state dicts under the names of `Trained.tensors`."""
    held = {part: parts[part] or {} for part in ("online", "averaged", "own")}
    values = {f"{part}.{name}": value for part, state in held.items() for name, value in state.items()}
    for number, state in parts["optimizer"]["state"].items():
        values |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    return values


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _start(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimiser the state of its first step without moving a weight: its tensors are then loaded."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for parameter in _parameters(optimizer):
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
