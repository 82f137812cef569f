"""Weights on disk once, however many graphs use them.

A tensor is written beside the first graph that holds it; a later graph with the same bytes points there.
ONNX Runtime lets a graph point into its own folder and below, never above it: so the split models go into
subfolders first, and the graphs that combine them lie at the package's root and own almost nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx_ir as ir

# Smaller tensors stay inside the graph's own file.
INLINE_BYTES = 1024
ALIGNMENT = 64


@dataclass(frozen=True)
class _Place:
    """Where a tensor's bytes lie: a data file relative to the package, and the range in it."""

    file: PurePosixPath
    offset: int
    length: int


class SharedWeights:
    """Saves models into one package folder without writing the same tensor twice."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self._places: dict[bytes, list[_Place]] = {}

    def save(self, model: ir.Model, path: str) -> None:
        """Write a model and those of its weights that no reachable file holds yet.

        Args:
            model: weights in memory; they are replaced by references.
            path: the graph's file relative to the package; its own weights go to `<path>_data`.
        """
        graph_file = PurePosixPath(path)
        data_file = graph_file.with_name(graph_file.name + "_data")
        target = self.package / graph_file
        target.parent.mkdir(parents=True, exist_ok=True)
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.nbytes < INLINE_BYTES:
                continue
            place = self._place(tensor.tobytes(), graph_file.parent, data_file)
            value.const_value = ir.ExternalTensor(
                location=str(place.file.relative_to(graph_file.parent)),
                offset=place.offset,
                length=place.length,
                dtype=tensor.dtype,
                shape=tensor.shape,  # type: ignore[arg-type]
                name=value.name or "",
                base_dir=target.parent,
            )
        ir.save(model, target)

    def _place(self, content: bytes, folder: PurePosixPath, data_file: PurePosixPath) -> _Place:
        """Where these bytes lie within the folder's reach; appended to `data_file` if nowhere."""
        digest = hashlib.sha256(content).digest()
        known = self._places.setdefault(digest, [])
        for place in known:
            if place.file.is_relative_to(folder):
                return place
        with (self.package / data_file).open("ab") as file:
            file.write(bytes(-file.tell() % ALIGNMENT))
            place = _Place(data_file, file.tell(), len(content))
            file.write(content)
        known.append(place)
        return place
