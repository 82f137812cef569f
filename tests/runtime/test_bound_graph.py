"""Fixed buffers give what a plain run gives, at every batch size and after every other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from twinflow_core.runtime.bound_graph import BoundGraph
from twinflow_core.runtime.loaded_package import LoadedPackage

pytestmark = pytest.mark.slow


def test_bound_runs_equal_plain_ones(tiny_package: Path) -> None:
    package = LoadedPackage.from_folder(tiny_package, "cpu", threads=1)
    session = onnxruntime.InferenceSession(tiny_package / "nfe2.onnx", providers=["CPUExecutionProvider"])
    bound = BoundGraph(session, "cpu", capture=False)
    random = np.random.default_rng(0)
    kept = []
    for batch in (3, 1, 4, 2, 3):
        noises = random.standard_normal((2, batch, *package.manifest.latent_shape), np.float32)
        embeddings = package.encode([f"{row} red circle" for row in range(batch)])
        inputs = {
            "noises": noises,
            **embeddings.parts,
        }
        (images,) = bound.run(inputs)
        expected = package.render(noises.swapaxes(0, 1), embeddings)
        np.testing.assert_allclose(images, expected, atol=1e-5)
        kept.append((images, expected))
    for images, expected in kept:
        np.testing.assert_allclose(images, expected, atol=1e-5)
    with pytest.raises(ValueError, match="noises has shape"):
        bound.run({**inputs, "noises": noises[:1]})


def test_token_ids_are_bound_too(tiny_package: Path) -> None:
    session = onnxruntime.InferenceSession(tiny_package / "text.onnx", providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(0, 500, (3, 12))
    inputs = {"input_ids": ids, "input_ids_2": ids[::-1].copy()}
    bound = BoundGraph(session, "cpu", capture=False).run(inputs)
    for one, other in zip(bound, session.run(None, inputs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
