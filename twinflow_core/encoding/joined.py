"""Many shards of rows, indexed as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor


class Rows(Protocol):
    """What a tensor and a conditioning have in common: rows that are chosen by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | Tensor, /) -> Self: ...


Part = TypeVar("Part", bound=Rows)


class Joined(Generic[Part]):
    """The rows of several parts, one after the other. What is chosen is copied; the parts are not.

    Args:
        parts: at least one; a tensor mapped from disk is read only where rows are chosen.
        cat: joins chosen rows of several parts.
    """

    def __init__(self, parts: list[Part], cat: Callable[[list[Part]], Part]) -> None:
        self._parts = parts
        self._cat = cat
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: slice | Tensor) -> Part:
        """The rows of these numbers (int64 [n]) or of this slice, in this order."""
        if isinstance(rows, slice):
            rows = torch.tensor(range(len(self))[rows], dtype=torch.int64)
        holders = torch.bucketize(rows, self._ends, right=True)
        present = holders.unique().tolist()
        chosen, places = [], []
        for holder in present:
            here = (holders == holder).nonzero()[:, 0]
            start = int(self._ends[holder - 1]) if holder else 0
            chosen.append(self._parts[holder][rows[here] - start])
            places.append(here)
        if len(chosen) < 2:
            return chosen[0] if chosen else self._parts[0][rows]
        return self._cat(chosen)[torch.cat(places).argsort()]
