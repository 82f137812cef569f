"""What a step of an objective costs in forward-equivalents: one for an evaluation, two more for its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from twinflow_core.training.loop import Training


class RowCounter:
    """Forward-equivalents of the networks that it is attached to."""

    def __init__(self) -> None:
        self.equivalents = 0

    def _count(self, network: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> None:
        self.equivalents += len(output) * (3 if output.requires_grad else 1)

    @contextmanager
    def attached(self, networks: list[nn.Module]) -> Iterator[RowCounter]:
        """Count the rows of every call inside the block."""
        handles = [network.register_forward_hook(self._count) for network in networks]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()


def equivalents_a_row(training: Training, steps: int) -> float:
    """The mean cost of a row over the first steps, each computed and thrown away."""
    networks = [training.online, training.averaged, training.base, training.fake_score]
    with RowCounter().attached([each for each in networks if each is not None]) as counter:
        for step in range(steps):
            for rows in training.rows(step):
                training.objective.loss(training.networks, rows, step)
    return counter.equivalents / (steps * training.options.batch_size)
