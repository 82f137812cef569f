"""The rows of a step on several threads of one process, where a CPU trains.

A small network is many small operations, and torch's own threads wait for each other after every one of them. Here
each thread computes rows of its own from the first operation to the gradient. Gradients are added in the order of the
rows, so that which thread ends first changes nothing. Pieces of a step add up to it (see `micro_batches`): lanes change
its rounding alone, as torch's number of threads does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor, nn

from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.micro_batches import balanced_pieces
from twinflow_core.training.ranks import Ranks
from twinflow_core.training.roles import Role
from twinflow_core.training.step import MicroBatch, Networks, StepLoss
from twinflow_core.training.step_metrics import StepMetrics

LEAST_ROWS = 16

# The loss of a part by these networks.
PartLoss = Callable[[Networks, MicroBatch], StepLoss]


def lane_count(options: FinetuneParams, device: torch.device, ranks: Ranks) -> int:
    """As many lanes as torch has threads, but each with at least 16 rows of a part, and one where lanes cannot be.

    One it is on a GPU, which orders its operations itself; where several processes or a compiler share a network's
    calls; under forward-mode differentiation, whose choice of attention holds for all threads; and where pieces do not
    add up to the step, with `fakes: shared`.

    Args:
        options: the finetune section.
        device: where the network is.
        ranks: the processes that train together.
    """
    forward_mode = options.objective == "meanflow" and options.meanflow.derivative == "forward_mode"
    alone = device.type == "cpu" and ranks.mesh is None
    if not alone or options.compile or forward_mode or options.fakes == "shared":
        return 1
    rows = options.batch_size // options.accumulation
    return max(1, min(torch.get_num_threads(), rows // LEAST_ROWS))


class Lanes:
    """Computes the parts of a step, each by all lanes at once, and adds up their gradients.

    Args:
        networks: those of each lane, of the same weights; with one the calling thread computes, and torch's threads
            share each operation.
        trained: the parameters whose gradients are wanted.
        costs: of a row of each role, by which the lanes share a part.
    """

    def __init__(
        self, networks: list[Networks], trained: list[nn.Parameter], costs: Mapping[Role, float]
    ) -> None:
        self.networks, self.trained, self.costs = networks, trained, costs
        # Torch keeps this number for each thread.
        threads = max(1, torch.get_num_threads() // self.count)
        self.pool = ThreadPoolExecutor(self.count, "lane", torch.set_num_threads, (threads,))

    @property
    def count(self) -> int:
        """How many lanes there are."""
        return len(self.networks)

    def backward(self, parts: list[MicroBatch], loss: PartLoss) -> list[StepMetrics]:
        """Add the parts' gradients to those of the trained parameters, and return what is said of their rows.

        Args:
            parts: of one step, computed one after the other.
            loss: called with the networks of a lane and its rows, in the lane's thread.
        """
        if self.count == 1:
            return [_backward(loss(self.networks[0], part)) for part in parts]
        metrics: list[StepMetrics] = []
        for part in parts:
            pieces = balanced_pieces(part, self.costs, self.count)
            for gradients, said in self.pool.map(partial(self._gradients, loss), self.networks, pieces):
                self._add(gradients)
                metrics.append(said)
        return metrics

    def _gradients(
        self, loss: PartLoss, networks: Networks, part: MicroBatch
    ) -> tuple[tuple[Tensor | None, ...], StepMetrics]:
        done = loss(networks, part)
        return torch.autograd.grad(done.loss, self.trained, allow_unused=True), done.metrics

    def _add(self, gradients: tuple[Tensor | None, ...]) -> None:
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


def _backward(done: StepLoss) -> StepMetrics:
    done.loss.backward()
    return done.metrics
