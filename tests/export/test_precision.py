"""Fewer bits take less room and stay close; what must not lose anything does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from twinflow_core.errors import TwinflowError
from twinflow_core.export.compose import Composition, axes
from twinflow_core.export.package import LOWEST_PSNR, _require_fidelity
from twinflow_core.export.precision import NARROW, Precision, in_precision, weight_bytes

pytestmark = pytest.mark.slow


@pytest.fixture
def denoiser(tiny_package: Path) -> ir.Model:
    model = ir.load(tiny_package / "transformer/model.onnx")
    ir.external_data.load_to_model(model)
    return model


def inputs(model: ir.Model) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(0)
    shapes = {
        each.name: [axis if isinstance(axis, int) else 2 for axis in each.shape]
        for each in model.graph.inputs
    }
    drawn = {
        name: random.standard_normal(shape, np.float32)
        for name, shape in shapes.items()
        if name != "timestep"
    }
    return {**drawn, "timestep": np.full(2, 1000, np.float32)}


def run(model: ir.Model, given: dict[str, Any]) -> NDArray[np.float32]:
    content = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, given)[0]


def placed(model: ir.Model) -> ir.Model:
    """The model as the one piece of a composition, which is how generators hold it."""
    whole = Composition(20)
    given = [
        whole.input(str(each.name), each.dtype or ir.DataType.FLOAT, axes(each))
        for each in model.graph.inputs
    ]
    (output,) = whole.place(model, *given)
    return whole.finish({"output": (output, axes(model.graph.outputs[0]))})


def signal_to_noise(exact: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    return float(10 * np.log10(np.square(exact).mean() / np.square(found - exact).mean()))


@pytest.mark.parametrize(("precision", "decibels"), [("fp16", 45), ("int8", 55), ("int4", 30)])
def test_fewer_bits_stay_close(denoiser: ir.Model, precision: Precision, decibels: float) -> None:
    given = inputs(denoiser)
    exact = run(denoiser, given)
    smaller = in_precision(denoiser, precision)
    found = run(smaller, given)
    assert found.dtype == np.float32
    assert signal_to_noise(exact, found) > decibels
    assert weight_bytes(smaller) < 0.65 * weight_bytes(denoiser)
    np.testing.assert_array_equal(run(denoiser, given), exact)
    np.testing.assert_array_equal(run(placed(smaller), given), found)


def test_narrow_matrices_and_single_rows_keep_their_weights(denoiser: ir.Model) -> None:
    smaller = in_precision(denoiser, "int4")
    kinds = [node.op_type for node in smaller.graph]
    assert kinds.count("Gemm") == [node.op_type for node in denoiser.graph].count("Gemm") > 0
    weights = smaller.graph.initializers
    kept = [
        weights[node.inputs[1].name]
        for node in smaller.graph
        if node.op_type == "MatMul" and node.inputs[1].name in weights
    ]
    assert kept
    assert all(min(value.shape) < NARROW for value in kept)


def test_full_precision_is_the_model_itself(denoiser: ir.Model) -> None:
    assert in_precision(denoiser, "fp32") is denoiser


def test_a_piece_in_fewer_bits_can_be_composed(denoiser: ir.Model) -> None:
    smaller = in_precision(denoiser, "int8")
    given = inputs(denoiser)
    whole = Composition(20)
    placed = [
        whole.input(
            each.name, each.dtype, [str(axis) if not isinstance(axis, int) else axis for axis in each.shape]
        )
        for each in smaller.graph.inputs
    ]
    (velocity,) = whole.place(smaller, *placed)
    model = whole.finish({"velocity": (velocity, ("batch", 4, 8, 8))})
    np.testing.assert_array_equal(run(model, given), run(smaller, given))


@pytest.mark.parametrize("parity", [{"finite": 1, "psnr": LOWEST_PSNR - 1}, {"finite": 0, "psnr": 90}])
def test_what_fewer_bits_have_spoilt_is_not_packaged(parity: dict[str, float | int]) -> None:
    with pytest.raises(TwinflowError, match="too differently from torch"):
        _require_fidelity(parity, "int4")
    with pytest.raises(TwinflowError, match="too differently from torch") as refused:
        _require_fidelity(parity, "fp32", "int8")
    assert refused.value.where.endswith("export: text_precision = int8")
    _require_fidelity(parity, "fp32")
    _require_fidelity({"finite": 1, "psnr": LOWEST_PSNR}, "int4", "int4")
