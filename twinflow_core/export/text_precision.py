"""Text encoders in fewer bits: the weights of their matrix products, and the embeddings of their tokens.

- in fp16: both in float16, and so are the products with these weights;
- in int8 and int4: weights as in a denoiser, token embeddings in float16.

All else is computed in float32, and so are the outputs: what goes from layer to layer, normalisations, attention
between tokens, positions. Language models have single values beyond what float16 holds, and a position in float16 may
be off by half a token. Matrices narrower than NARROW keep their weights.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass, RemoveUnusedNodesPass

from twinflow_core.export.precision import BITS, NARROW, Precision, in_precision

# Inputs of products in float16 are divided by it and outputs multiplied: as a power of two it costs no digit, and
# float16 then holds up to 4 million.
HEADROOM = 64.0


def text_in_precision(model: ir.Model, precision: Precision) -> ir.Model:
    """The same graph with the same inputs and outputs, its weights stored in another precision.

    Args:
        model: token ids to states or embeddings, in float32, weights in memory; it is left as it is.
        precision: "fp32" gives the model itself.
    """
    if precision == "fp32":
        return model
    if precision in BITS:
        smaller = in_precision(model, precision)
    else:
        smaller = ir.Model(model.graph.clone(), ir_version=model.ir_version)
        _products_in_float16(smaller.graph)
    _token_embeddings_in_float16(smaller.graph)
    RemoveUnusedNodesPass()(smaller)
    NameFixPass()(smaller)
    return smaller


def _products_in_float16(graph: ir.Graph) -> None:
    down, up = _number(graph, "headroom_down", 1 / HEADROOM), _number(graph, "headroom_up", HEADROOM)
    halved: dict[ir.Value, ir.Value] = {}
    for node in [node for node in graph if node.op_type == "MatMul"]:
        given, weights = node.inputs
        if given is None or weights is None or not _is_wide(weights):
            continue
        if given not in halved:
            scaled = ir.node("Mul", [given, down])
            cast = ir.node("Cast", scaled.outputs, {"to": ir.DataType.FLOAT16})
            graph.insert_before(node, [scaled, cast])
            halved[given] = cast.outputs[0]
        product = ir.node("MatMul", [halved[given], _in_float16(graph, weights)])
        back = ir.node("Cast", product.outputs, {"to": ir.DataType.FLOAT})
        _replace(graph, node, [product, back, ir.node("Mul", [back.outputs[0], up])])


def _token_embeddings_in_float16(graph: ir.Graph) -> None:
    """Tables that are read at the very ids that the graph is given."""
    for node in [node for node in graph if node.op_type == "Gather"]:
        table, ids = node.inputs
        if table is None or not _is_wide(table) or _origin(ids) not in graph.inputs:
            continue
        read = ir.node("Gather", [_in_float16(graph, table), ids], {"axis": 0})
        _replace(graph, node, [read, ir.node("Cast", read.outputs, {"to": ir.DataType.FLOAT})])


def _origin(value: ir.Value | None) -> ir.Value | None:
    """What a value is a reshaped view of."""
    producer = None if value is None else value.producer()
    return _origin(producer.inputs[0]) if producer is not None and producer.op_type == "Reshape" else value


def _replace(graph: ir.Graph, node: ir.Node, others: list[ir.Node]) -> None:
    """Let nodes, the last of which gives its value, stand for one."""
    graph.insert_before(node, others)
    old, new = node.outputs[0], others[-1].outputs[0]
    new.shape, new.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new.name = old.name


def _is_wide(value: ir.Value) -> bool:
    tensor = value.const_value if value.is_initializer() else None
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return False
    return len(tensor.shape) == 2 and min(tensor.shape.numpy()) >= NARROW


def _in_float16(graph: ir.Graph, value: ir.Value) -> ir.Value:
    assert value.const_value is not None
    return _initializer(graph, f"{value.name}_half", value.const_value.numpy().astype(np.float16))


def _number(graph: ir.Graph, name: str, number: float) -> ir.Value:
    return _initializer(graph, name, np.array(number, np.float32))


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """The one of this name, if it is there already."""
    if name not in graph.initializers:
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        graph.register_initializer(value)
    return graph.initializers[name]
