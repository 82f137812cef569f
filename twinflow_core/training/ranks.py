"""This process among those that train together: its number, the mesh of their devices, what it hears of the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh


@dataclass(frozen=True)
class Ranks:
    """The processes of a training.

    Attributes:
        rank: the number of this process, 0-based.
        count: how many there are.
        mesh: their devices, or None where this process trains alone and nothing is sharded.
    """

    rank: int = 0
    count: int = 1
    mesh: DeviceMesh | None = None

    @property
    def first(self) -> bool:
        """Whether this process prints, logs and saves."""
        return self.rank == 0

    def gather(self, values: dict[str, float]) -> list[dict[str, float]]:
        """The values of every rank, by rank; all ranks must have the same names."""
        if self.mesh is None:
            return [values]
        # The group speaks gloo on the CPU beside NCCL on the GPU, so that a few numbers need no device.
        here = torch.tensor(list(values.values()), dtype=torch.float64)
        rows: list[Tensor] = [torch.empty_like(here) for _ in range(self.count)]
        dist.all_gather(rows, here)
        return [dict(zip(values, row.tolist(), strict=True)) for row in rows]

    def wait(self) -> None:
        """Go on when all ranks are here."""
        if self.mesh is not None:
            dist.barrier()


ALONE = Ranks()


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Meet the other processes of this launch, each with a device of its own: NCCL on GPUs, else gloo.

    Where it fails nothing is closed: the others may be gone, and closing would wait for them.
    """
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"])))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    mesh = init_device_mesh("cuda" if on_gpu else "cpu", (dist.get_world_size(),))
    yield Ranks(dist.get_rank(), dist.get_world_size(), mesh)
    dist.destroy_process_group()
