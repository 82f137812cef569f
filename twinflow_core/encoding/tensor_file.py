"""A safetensors file written row by row, so that none of its tensors need be in memory whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = 8

Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


class TensorFile:
    """Writes tensors whose types and shapes are known beforehand. Use as a context manager.

    Rows may come in any order; one that is never written reads as zeros.

    Args:
        path: the file; it is replaced.
        layout: name -> (type, shape), the first dimension being rows.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        # The widest types first, as the library does it, so that every tensor is aligned.
        names = sorted(layout, key=lambda name: (-layout[name][0].itemsize, name))
        entries, self._starts, self._row_bytes, end = {}, {}, {}, 0
        for name in names:
            kind, shape = layout[name]
            self._starts[name] = end
            self._row_bytes[name] = math.prod(shape[1:]) * kind.itemsize
            end += shape[0] * self._row_bytes[name]
            entries[name] = {
                "dtype": _NAMES[kind],
                "shape": list(shape),
                "data_offsets": [self._starts[name], end],
            }
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % _ALIGNMENT)
        self._layout = layout
        self._body = 8 + len(header)
        self._file = path.open("wb")
        self._file.write(len(header).to_bytes(8, "little") + header)
        self._file.truncate(self._body + end)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, name: str, first_row: int, rows: Tensor) -> None:
        """Write rows [n, ...] of one tensor at `first_row`.

        Raises:
            ValueError: the rows have another type or shape than the layout says, or lie outside of it.
        """
        kind, shape = self._layout[name]
        if rows.dtype != kind or rows.shape[1:] != shape[1:] or not 0 <= first_row <= shape[0] - len(rows):
            raise ValueError(
                f"{rows.dtype} {list(rows.shape)} at {first_row} of {name}: {kind} {list(shape)}"
            )
        self._file.seek(self._body + self._starts[name] + first_row * self._row_bytes[name])
        self._file.write(rows.detach().cpu().contiguous().view(torch.uint8).numpy().data)
