"""Bytes alive at each moment of a computation on tensors without data, and its floating-point operations."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, *args: Any, out_val: Any = None, **kwargs: Any
) -> int:
    """A forward's operations for each of the two gradients asked; torch's formula forgets groups."""
    forward = 2 * gradient.shape.numel() * weight.shape[1:].numel()
    return forward * sum(part is not None for part in out_val[:2])


FORMULAS: dict[Any, Any] = {**flop_registry, torch.ops.aten.convolution_backward: _convolution_backward}


class StorageLedger(TorchDispatchMode):
    """Counts every storage that an operation makes, from its birth to its release, and what matrix products cost.

    What existed before (weights, inputs) is told at the start and never counted. A gradient leaves the count when
    it is complete in its parameter's `.grad`.

    Attributes:
        alive: bytes now, finished gradients aside.
        gradients: bytes of finished gradients.
        peak: the largest `alive` since `mark_peak`.
        flops: floating-point operations, by torch's formulas. (Its `FlopCounterMode` keeps tensors alive.)
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.alive = self.gradients = self.peak = self.flops = 0
        # Storages are told apart by address: valid while they live, so each entry goes with its storage.
        self._seen: dict[int, int] = {}
        self._kept = [tensor.untyped_storage() for tensor in known]
        self._seen.update({storage._cdata: 0 for storage in self._kept})

    def watch_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Count gradients of these parameters apart from the moment they are complete."""
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._note_gradient)

    def mark_peak(self) -> None:
        """Start measuring the peak anew."""
        self.peak = self.alive

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if (formula := FORMULAS.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=made)
        for each in tree_iter(made):
            if isinstance(each, Tensor):
                self._add(each.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen[key] = size
        weakref.finalize(storage, self._release, key)
        self.alive += size
        self.peak = max(self.peak, self.alive)

    def _release(self, key: int) -> None:
        self.alive -= self._seen.pop(key)

    def _note_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        storage = parameter.grad.untyped_storage()
        size = self._seen.get(storage._cdata, 0)
        if size:
            self._seen[storage._cdata] = 0
            self.alive -= size
            self.gradients += size
