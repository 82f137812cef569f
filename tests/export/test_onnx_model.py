"""Graphs hold the computation and nothing of the machine that made them; their batch is free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from twinflow_core.runtime.loaded_package import LoadedPackage

pytestmark = pytest.mark.slow


def graph_files(package: Path) -> list[Path]:
    return sorted(package.rglob("*.onnx"))


def annotated(model: onnx.ModelProto) -> Iterator[object]:
    yield from (model, model.graph, *model.functions)
    for graph in (model.graph, *model.functions):
        yield from graph.node
        yield from graph.value_info
    yield from (*model.graph.input, *model.graph.output, *model.graph.initializer)


def test_no_trace_of_sources_or_machine(tiny_package: Path) -> None:
    for path in graph_files(tiny_package):
        model = onnx.load(path, load_external_data=False)
        for part in annotated(model):
            assert not part.doc_string, path
            assert not part.metadata_props, path
        content = path.read_bytes()
        for trace in (b"site-packages", b".py", b"stack_trace", str(Path.home()).encode() + b"/"):
            assert trace not in content, path


def test_graphs_are_valid_onnx(tiny_package: Path) -> None:
    for path in graph_files(tiny_package):
        onnx.checker.check_model(path)


@pytest.mark.parametrize("batch", [1, 3, 70])
def test_any_batch_runs(tiny_package: Path, batch: int) -> None:
    generator = LoadedPackage.from_folder(tiny_package, "cpu")
    noises = np.random.default_rng(0).standard_normal((batch, 1, *generator.manifest.latent_shape))
    images = generator.render(noises.astype(np.float32), generator.encode(["a red circle"] * batch))
    assert images.shape == (batch, 3, 32, 32)
    assert np.isfinite(images).all()
