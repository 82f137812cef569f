"""A package of two sizes: each draws what torch draws there, and both have the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.export.package import build_package
from twinflow_core.export.parity import measure_parity
from twinflow_core.image_size import ImageSize
from twinflow_core.noise import image_noise
from twinflow_core.runtime.loaded_package import LoadedPackage, to_pixels
from twinflow_core.runtime.package import read_manifest
from twinflow_core.sampling.few_step import sample_few_steps

pytestmark = pytest.mark.slow

PROMPTS = ["a red circle", "two blue squares", ""]
WIDE = "64x32"


@pytest.fixture(scope="module")
def generator(sized_package: Path) -> LoadedPackage:
    return LoadedPackage.from_folder(sized_package, "cpu", threads=1)


def outside(path: Path) -> set[str]:
    """The files that hold a graph's weights."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    return {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}


def test_the_weights_are_stored_once(sized_package: Path, tiny_package: Path) -> None:
    shared = {"transformer/model.onnx_data", "vae_decoder/model.onnx_data"}
    assert outside(sized_package / "nfe1.onnx") == shared
    # What a size has for itself: the positions of its 8 x 4 tokens, 32 numbers each.
    positions = sized_package / "nfe1_64x32.onnx_data"
    assert positions.stat().st_size == 8 * 4 * 32 * 4
    for steps in (1, 2):
        assert outside(sized_package / f"nfe{steps}_{WIDE}.onnx") == {*shared, positions.name}
    added = {path.name for path in sized_package.iterdir()} - {path.name for path in tiny_package.iterdir()}
    assert added == {f"nfe1_{WIDE}.onnx", f"nfe2_{WIDE}.onnx", positions.name}


def test_the_manifest_lists_the_sizes_and_comes_back_as_written(sized_package: Path, tmp_path: Path) -> None:
    manifest = read_manifest(sized_package)
    assert (manifest.format, manifest.size_names) == (3, ["32x32", WIDE])
    wide = manifest.at(WIDE)
    assert (wide.latent_shape, wide.pixels, set(wide.generators)) == ((4, 8, 16), (32, 64), {"1", "2"})
    assert manifest.at("32x32") == manifest.at()
    assert manifest.at().generators == manifest.generators
    manifest.write(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == (sized_package / "manifest.json").read_bytes()


@pytest.mark.parametrize("steps", [1, 2])
def test_images_of_the_other_size_are_torchs(
    generator: LoadedPackage, tiny_pipeline: Path, steps: int
) -> None:
    backbone = load_backbone(tiny_pipeline)
    conditioning = backbone.encode_prompts(PROMPTS)
    backbone.at_size(32, 64)
    noises = [image_noise(5, str(row), steps, backbone.latent_shape) for row in range(len(PROMPTS))]
    latents = sample_few_steps(
        lambda x_t, t, r: backbone.velocity(x_t, t, r, conditioning),
        torch.from_numpy(np.stack(noises, axis=1)),
    )
    expected = to_pixels(backbone.decode_latents(latents).numpy()).astype(int)
    images = generator.generate(PROMPTS, seed=5, steps=steps, size=WIDE, batch_size=2)
    assert images.shape == (3, 32, 64, 3)
    assert np.abs(images - expected).max() <= 1
    assert generator.generate([], steps=steps, size=WIDE).shape == (0, 32, 64, 3)


def test_parity_is_measured_at_every_size(sized_package: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    assert json.loads((sized_package / "parity.json").read_text())["max_abs"] <= 1e-4
    damaged = Path(shutil.copytree(sized_package, tmp_path / "damaged"))
    positions = damaged / "nfe1_64x32.onnx_data"
    positions.write_bytes(bytes(positions.stat().st_size))
    package = LoadedPackage.from_folder(damaged, "cpu", threads=1, verify=False)
    assert measure_parity(load_backbone(tiny_pipeline), package)["max_abs"] > 1e-3


def test_a_size_that_there_is_not_names_those_there_are(generator: LoadedPackage) -> None:
    with pytest.raises(TwinflowError, match="48x32") as refused:
        generator.generate(PROMPTS, size="48x32")
    assert "32x32, 64x32" in refused.value.fix


def test_a_size_that_the_model_does_not_make_is_refused_before_anything_is_traced(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    with pytest.raises(TwinflowError, match="multiples of 8") as refused:
        build_package(load_backbone(tiny_pipeline), tmp_path, (1,), 20, sizes=[ImageSize(64, 30)])
    assert refused.value.where == "params.yaml: export.sizes"
    assert list(tmp_path.iterdir()) == []
