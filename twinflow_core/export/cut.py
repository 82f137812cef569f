"""The part of a traced graph between named values: one trace, several graphs, the same weights."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


def cut(model: ir.Model, given: Mapping[str, str], wanted: Mapping[str, str]) -> ir.Model:
    """The graph from values that will be given to outputs that are wanted; all weights in between are shared.

    Args:
        model: left as it is. Every value named here is one of its inputs or outputs.
        given: what becomes an input: the value's name, and the input's.
        wanted: what stays an output: the value's name, and the output's.

    Returns:
        A model whose inputs are those given and the old ones that are still of use.
    """
    graph = model.graph.clone()
    values = {value.name: value for value in (*graph.inputs, *graph.outputs)}
    graph.outputs.clear()
    fresh = []
    for name, new in given.items():
        old = values[name]
        if old in graph.inputs:
            old.name = new
            continue
        value = ir.Value(name=new, type=old.type, shape=old.shape)
        ir.convenience.replace_all_uses_with(old, value)
        fresh.append(value)
    for name, new in wanted.items():
        values[name].name = new
        graph.outputs.append(values[name])
    graph.inputs.extend(fresh)
    twin = ir.Model(graph, ir_version=model.ir_version)
    RemoveUnusedNodesPass()(twin)
    for value in [value for value in graph.inputs if not value.uses() and not value.is_graph_output()]:
        graph.inputs.remove(value)
    return twin


def input_names(model: ir.Model) -> list[str]:
    """The names of a model's inputs, in order."""
    return [str(value.name) for value in model.graph.inputs]
