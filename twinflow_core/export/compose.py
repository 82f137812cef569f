"""Whole graphs out of traced pieces: k evaluations reuse one denoiser, and nothing is traced twice.

Tracing costs minutes for large models and grows with the number of nodes, so each part is traced once, and what
lies between the parts (mixing in noise, stepping, scaling) is written here in ONNX's own operators.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass, RemoveUnusedNodesPass

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
    time_embeddings: Sequence[np.ndarray],
    times: Sequence[float],
    scale: float,
    shift: float,
    opset: int,
) -> ir.Model:
    """Noises and prompt embeddings to images in [0, 1], as `sampling.few_step` goes, with time folded in.

    Args:
        velocity: hidden_states, time embedding, prompt_embeds, pooled_prompt_embeds to the velocity.
        decoder: raw latents to images in [-1, 1].
        time_embeddings: float32 [1, width] of each time.
        times: of the evaluations, the first is 1.
        scale: the VAE's scaling factor.
        shift: the VAE's shift factor.
        opset: of the result.
    """
    whole = Composition(opset)
    latents, _, embeds, pooled = velocity.graph.inputs
    batch, *shape = _shape(latents)
    noises = whole.input("noises", ir.DataType.FLOAT, (len(times), batch, *shape))
    embeds = whole.input("prompt_embeds", ir.DataType.FLOAT, _shape(embeds))
    pooled = whole.input("pooled_prompt_embeds", ir.DataType.FLOAT, _shape(pooled))
    x = None
    for step, (time, embedding) in enumerate(zip(times, time_embeddings, strict=True)):
        x_t = whole.op("Gather", noises, whole.constant(np.array(step)), axis=0)
        if x is not None:
            fresh = whole.op("Mul", x_t, whole.constant(time))
            x_t = whole.op("Add", fresh, whole.op("Mul", x, whole.constant(1 - time)))
        (v,) = whole.place(velocity, x_t, whole.constant(embedding), embeds, pooled)
        x = whole.op("Sub", x_t, v if time == 1 else whole.op("Mul", v, whole.constant(time)))
    assert x is not None
    raw = whole.op("Add", whole.op("Div", x, whole.constant(scale)), whole.constant(shift))
    (decoded,) = whole.place(decoder, raw)
    halved = whole.op("Add", whole.op("Div", decoded, whole.constant(2.0)), whole.constant(0.5))
    images = whole.op("Clip", halved, whole.constant(0.0), whole.constant(1.0))
    return whole.finish({"images": (images, _shape(decoder.graph.outputs[0]))})


def denoiser_model(embedder: ir.Model, velocity: ir.Model, opset: int) -> ir.Model:
    """One evaluation at any time: the inputs and the output that optimum-onnx names."""
    whole = Composition(opset)
    latents, _, embeds, pooled = velocity.graph.inputs
    hidden = whole.input("hidden_states", ir.DataType.FLOAT, _shape(latents))
    embeds = whole.input("encoder_hidden_states", ir.DataType.FLOAT, _shape(embeds))
    pooled = whole.input("pooled_projections", ir.DataType.FLOAT, _shape(pooled))
    timestep = whole.input("timestep", ir.DataType.FLOAT, _shape(embedder.graph.inputs[0]))
    (embedding,) = whole.place(embedder, timestep)
    (v,) = whole.place(velocity, hidden, embedding, embeds, pooled)
    return whole.finish({"out_hidden_states": (v, _shape(velocity.graph.outputs[0]))})


def text_model(encoders: Sequence[ir.Model], context: int, width: int, opset: int) -> ir.Model:
    """Token ids of all tokenizers to prompt embeddings [B, context, width] and pooled embeddings.

    Args:
        encoders: each ids to text_embeds, last_hidden_state, and every layer's hidden state.
        context: tokens of the whole context, zeros at its end included.
        width: of one token's embedding, zeros at its end included.
        opset: of the result.
    """
    whole = Composition(opset)
    placed = []
    for number, encoder in enumerate(encoders):
        name = "input_ids" if number == 0 else f"input_ids_{number + 1}"
        ids = whole.input(name, ir.DataType.INT64, _shape(encoder.graph.inputs[0]))
        placed.append(whole.place(encoder, ids))
    states = whole.op("Concat", *(outputs[-2] for outputs in placed), axis=-1)
    pooled = whole.op("Concat", *(outputs[0] for outputs in placed), axis=-1)
    batch, length, _ = _shape(encoders[0].graph.outputs[-2])
    wide = sum(int(_shape(encoder.graph.outputs[-2])[2]) for encoder in encoders)
    missing = whole.constant([0, 0, 0, 0, context - int(length), width - wide])
    embeds = whole.op("Pad", states, missing)
    pooled_width = sum(int(_shape(encoder.graph.outputs[0])[1]) for encoder in encoders)
    return whole.finish(
        {
            "prompt_embeds": (embeds, (batch, context, width)),
            "pooled_prompt_embeds": (pooled, (batch, pooled_width)),
        }
    )


def _shape(value: ir.Value) -> Shape:
    assert value.shape is not None
    return tuple(axis if isinstance(axis, int) else str(axis) for axis in value.shape)
