"""Whole graphs out of traced pieces: k evaluations reuse one denoiser, and nothing is traced twice.

Tracing costs minutes for large models and grows with the number of nodes, so each part is traced once, and what
lies between the parts (mixing in noise, stepping, scaling) is written here in ONNX's own operators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass, RemoveUnusedNodesPass

from twinflow_core.export.graphs import HIDDEN
from twinflow_core.runtime.package import NOISES

IR_VERSION = 10
Shape = tuple[int | str, ...]


class Composition:
    """A graph under construction.

    Args:
        opset: of the default domain.
    """

    def __init__(self, opset: int) -> None:
        self._graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="main_graph")
        self._shared: dict[tuple[int, str], ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, shape: Shape) -> ir.Value:
        """A new input of the whole; a text in the shape names a dynamic axis."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self._graph.inputs.append(value)
        return value

    def op(self, kind: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        """One operator's only output."""
        tape = ir.tape.Tape()
        output = tape.op(kind, list(inputs), attributes)
        self._graph.extend(tape.nodes)
        return output

    def constant(self, value: float | Sequence[int] | np.ndarray) -> ir.Value:
        """A tensor known now: float32 of a number, int64 of a list, an array as it is."""
        if isinstance(value, float):
            array = np.array(value, np.float32)
        else:
            array = value if isinstance(value, np.ndarray) else np.array(value, np.int64)
        name = f"constant_{len(self._graph.initializers)}"
        made = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        made.shape, made.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        self._graph.register_initializer(made)
        return made

    def repeated(self, row: np.ndarray, rows: ir.Value) -> ir.Value:
        """One known row [1, ..] as many times as the int64 [1] tensor `rows` says."""
        shape = self.op("Concat", rows, self.constant(list(row.shape[1:])), axis=0)
        return self.op("Expand", self.constant(row), shape)

    def place(self, piece: ir.Model, *given: ir.Value) -> list[ir.Value]:
        """A traced graph with these values as its inputs; its outputs. Weights are shared by all its copies.

        The piece itself is left as it is.
        """
        for domain, version in piece.graph.opset_imports.items():
            self._graph.opset_imports.setdefault(domain, version)
        twin = piece.graph.clone()
        outputs = list(twin.outputs)
        twin.outputs.clear()
        for old, new in zip(list(twin.inputs), given, strict=True):
            ir.convenience.replace_all_uses_with(old, new)
        for name, value in list(twin.initializers.items()):
            del twin.initializers[name]
            known = self._shared.setdefault((id(piece), name), value)
            if known is value:
                value.name = f"{name}_{len(self._graph.initializers)}"
                self._graph.register_initializer(value)
            else:
                ir.convenience.replace_all_uses_with(value, known)
        nodes = list(twin)
        twin.remove(nodes)
        self._graph.extend(nodes)
        return outputs

    def finish(self, outputs: dict[str, tuple[ir.Value, Shape]]) -> ir.Model:
        """The model with these outputs, without what none of them needs."""
        for name, (value, shape) in outputs.items():
            value.name = name
            value.shape, value.type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
            self._graph.outputs.append(value)
        model = ir.Model(self._graph, ir_version=IR_VERSION)
        RemoveUnusedNodesPass()(model)
        NameFixPass()(model)
        return model


def generator_model(
    velocity: ir.Model,
    decoder: ir.Model,
    time_values: Sequence[Mapping[str, np.ndarray]],
    times: Sequence[float],
    opset: int,
) -> ir.Model:
    """Noises and prompt embeddings to images in [0, 1], as `sampling.few_step` goes, with time folded in.

    Args:
        velocity: latents (HIDDEN), what depends on time alone, and conditioning to the velocity.
        decoder: normalised latents to images in [0, 1].
        time_values: for each evaluation the inputs that depend on time alone, by name, one row each.
        times: of the evaluations, the first is 1.
        opset: of the result.
    """
    whole = Composition(opset)
    inputs = {str(value.name): value for value in velocity.graph.inputs}
    batch, *shape = axes(inputs.pop(HIDDEN))
    noises = whole.input(NOISES, ir.DataType.FLOAT, (len(times), batch, *shape))
    rows = whole.op("Shape", noises, start=1, end=2)
    given = {
        name: whole.input(name, value.dtype or ir.DataType.FLOAT, axes(value))
        for name, value in inputs.items()
        if name not in time_values[0]
    }
    x = None
    for step, (time, constants) in enumerate(zip(times, time_values, strict=True)):
        x_t = whole.op("Gather", noises, whole.constant(np.array(step)), axis=0)
        if x is not None:
            fresh = whole.op("Mul", x_t, whole.constant(time))
            x_t = whole.op("Add", fresh, whole.op("Mul", x, whole.constant(1 - time)))
        given |= {name: whole.repeated(constant, rows) for name, constant in constants.items()}
        given[HIDDEN] = x_t
        (v,) = whole.place(velocity, *(given[str(value.name)] for value in velocity.graph.inputs))
        x = whole.op("Sub", x_t, v if time == 1 else whole.op("Mul", v, whole.constant(time)))
    assert x is not None
    (images,) = whole.place(decoder, x)
    return whole.finish({"images": (images, axes(decoder.graph.outputs[0]))})


def axes(value: ir.Value) -> Shape:
    """A value's shape, names for the dynamic axes."""
    assert value.shape is not None
    return tuple(axis if isinstance(axis, int) else str(axis) for axis in value.shape)
