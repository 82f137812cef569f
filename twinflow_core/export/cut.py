"""The part of a traced graph between named values: one trace, several graphs, the same weights."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


def cut(
    model: ir.Model,
    given: Mapping[str, str],
    wanted: Mapping[str, str],
    rows_of: Mapping[str, str] | None = None,
) -> ir.Model:
    """The graph from values that will be given to outputs that are wanted; all weights in between are shared.

    Args:
        model: left as it is. Every value named here is one of its inputs or outputs.
        given: what becomes an input: the value's name, and the input's.
        wanted: what stays an output: the value's name, and the output's.
        rows_of: inputs that are looked at for their number of rows where others would do, and which others.

    Returns:
        A model whose inputs are those given and the old ones that are still of use.

    Raises:
        RuntimeError: an old input that is still of use has the name of a given one.
    """
    graph = model.graph.clone()
    values = {value.name: value for value in (*graph.inputs, *graph.outputs)}
    graph.outputs.clear()
    for name, other in (rows_of or {}).items():
        _count_rows_of(values[name], values[other])
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
    if len(set(input_names(twin))) < len(graph.inputs):
        raise RuntimeError(f"two inputs of one name: {', '.join(input_names(twin))}")
    return twin


def _count_rows_of(value: ir.Value, other: ir.Value) -> None:
    """Let nodes that only ask how many rows `value` has ask `other`."""
    for node, index in list(value.uses()):
        start, end = node.attributes.get("start"), node.attributes.get("end")
        if (
            node.op_type == "Shape"
            and end is not None
            and end.as_int() == 1
            and (start is None or not start.as_int())
        ):
            node.replace_input_with(index, other)


def input_names(model: ir.Model) -> list[str]:
    """The names of a model's inputs, in order."""
    return [str(value.name) for value in model.graph.inputs]
