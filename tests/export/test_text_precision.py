"""Text encoders in fewer bits: what float16 cannot hold comes through, what counts positions is not touched."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from twinflow_core.export import text_precision
from twinflow_core.export.compose import Composition
from twinflow_core.export.precision import Precision, weight_bytes
from twinflow_core.export.text_precision import text_in_precision

TOKENS, WIDTH, LENGTH = 96, 64, 600
# Times values around 1: more than the 65,504 that float16 holds.
SPIKE = 2e5
IDS = np.random.default_rng(1).integers(0, TOKENS, (1, LENGTH))


def spiking_encoder() -> ir.Model:
    """Ids to token embeddings, to a gated feed-forward layer with one huge value inside, and to turned positions."""
    random = np.random.default_rng(0)

    def weights(*shape: int) -> NDArray[np.float32]:
        return random.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))

    whole = Composition(20)
    ids = whole.input("input_ids", ir.DataType.INT64, ("batch", LENGTH))
    table = random.standard_normal((TOKENS, WIDTH), np.float32)
    embeds = whole.op("Gather", whole.constant(table), ids, axis=0)
    gate, up = (whole.op("MatMul", embeds, whole.constant(weights(WIDTH, 2 * WIDTH))) for _ in range(2))
    spikes = np.ones(2 * WIDTH, np.float32)
    spikes[0] = SPIKE
    inner = whole.op("Mul", whole.op("Mul", gate, up), whole.constant(spikes))
    states = whole.op("MatMul", inner, whole.constant(weights(2 * WIDTH, WIDTH)))
    frequencies = whole.constant((1 / 10000 ** (np.arange(WIDTH) / WIDTH)).astype(np.float32)[None])
    angles = whole.op("MatMul", whole.constant(np.arange(LENGTH, dtype=np.float32)[:, None]), frequencies)
    return whole.finish(
        {
            "states": (states, ("batch", LENGTH, WIDTH)),
            "turns": (whole.op("Sin", angles), (LENGTH, WIDTH)),
            "hidden_states.0": (embeds, ("batch", LENGTH, WIDTH)),
        }
    )


def run_to_the_letter(model: ir.Model) -> list[NDArray[np.float32]]:
    """By ONNX's own definitions: on the CPU, ONNX Runtime computes products of float16 in float32."""
    return ReferenceEvaluator(ir.to_proto(model)).run(None, {"input_ids": IDS})


def run(model: ir.Model) -> list[NDArray[np.float32]]:
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": IDS})


@pytest.mark.parametrize(("precision", "error"), [("fp16", 2e-3), ("int8", 2e-2), ("int4", 0.2)])
def test_huge_values_and_positions_come_through(precision: Precision, error: float) -> None:
    model = spiking_encoder()
    exact, size = run(model), weight_bytes(model)
    smaller = text_in_precision(model, precision)
    assert [each.name for each in smaller.graph.outputs] == [each.name for each in model.graph.outputs]
    if precision == "fp16":
        assert np.abs(run_to_the_letter(smaller)[0] - exact[0]).max() <= error * np.abs(exact[0]).max()
    states, turns, embeds = run(smaller)
    assert {each.dtype for each in (states, turns, embeds)} == {np.dtype(np.float32)}
    assert np.abs(states - exact[0]).max() <= error * np.abs(exact[0]).max()
    np.testing.assert_array_equal(turns, exact[1])
    np.testing.assert_array_equal(embeds, exact[2].astype(np.float16))
    assert weight_bytes(smaller) < 0.55 * size
    for before, after in zip(exact, run(model), strict=True):
        np.testing.assert_array_equal(after, before)


def test_without_headroom_float16_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_precision, "HEADROOM", 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        states = run_to_the_letter(text_in_precision(spiking_encoder(), "fp16"))[0]
    assert not np.isfinite(states).all()


def test_full_precision_is_the_model_itself() -> None:
    model = spiking_encoder()
    assert text_in_precision(model, "fp32") is model
