"""A tensor is written once, and graphs read it back from wherever it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from twinflow_core.export.weights import SharedWeights

LARGE = np.arange(1024, dtype=np.float32).reshape(32, 32)
SMALL = np.full(32, 0.5, np.float32)


def adding(*constants: NDArray[np.float32]) -> ir.Model:
    """x plus each of the constants."""
    values = ["x", *(f"sum{i}" for i in range(len(constants)))]
    nodes = [
        helper.make_node("Add", [values[i], f"c{i}"], [values[i + 1]], name=f"add{i}")
        for i in range(len(constants))
    ]
    graph = helper.make_graph(
        nodes,
        "adding",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [32, 32])],
        [helper.make_tensor_value_info(values[-1], TensorProto.FLOAT, [32, 32])],
        [numpy_helper.from_array(constant, f"c{i}") for i, constant in enumerate(constants)],
    )
    opsets = [helper.make_opsetid("", 20)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def run(path: Path) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros((32, 32), np.float32)})[0]


def test_a_graph_above_points_into_the_folders_below(tmp_path: Path) -> None:
    weights = SharedWeights(tmp_path)
    weights.save(adding(LARGE, SMALL), "part/model.onnx")
    weights.save(adding(LARGE, SMALL, LARGE * 2), "whole.onnx")
    weights.save(adding(LARGE * 2, SMALL), "other.onnx")
    assert (tmp_path / "part/model.onnx_data").stat().st_size == LARGE.nbytes
    assert (tmp_path / "whole.onnx_data").stat().st_size == LARGE.nbytes
    assert not (tmp_path / "other.onnx_data").exists()
    np.testing.assert_array_equal(run(tmp_path / "part/model.onnx"), LARGE + SMALL)
    np.testing.assert_array_equal(run(tmp_path / "whole.onnx"), 3 * LARGE + SMALL)
    np.testing.assert_array_equal(run(tmp_path / "other.onnx"), 2 * LARGE + SMALL)


def test_a_folder_does_not_reach_its_neighbour(tmp_path: Path) -> None:
    weights = SharedWeights(tmp_path)
    weights.save(adding(LARGE), "first/model.onnx")
    weights.save(adding(LARGE), "second/model.onnx")
    np.testing.assert_array_equal(run(tmp_path / "second/model.onnx"), LARGE)
    assert (tmp_path / "second/model.onnx_data").stat().st_size == LARGE.nbytes


def test_every_tensor_is_aligned(tmp_path: Path) -> None:
    odd = np.arange(257, dtype=np.float32)
    weights = SharedWeights(tmp_path)
    model = adding(LARGE)
    model.graph.register_initializer(ir.Value(name="odd", const_value=ir.tensor(odd, name="odd")))
    weights.save(model, "model.onnx")
    stored = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.initializer
    offsets = [
        int(entry.value) for tensor in stored for entry in tensor.external_data if entry.key == "offset"
    ]
    assert len(offsets) == 2
    assert all(offset % 64 == 0 for offset in offsets)


@pytest.mark.slow
def test_a_package_holds_its_weights_once(tiny_package: Path) -> None:
    at_root = [path.name for path in tiny_package.iterdir() if path.name.endswith("_data")]
    assert at_root == []
