"""Sizes of real text encoders and VAEs, and the bytes of a batch against what a real call makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.backbones.tiny_qwen_image import build_tiny_qwen_image
from tests.backbones.tiny_sana import build_tiny_sana
from tests.backbones.tiny_z_image import build_tiny_z_image
from tests.tiny_pipeline import build_tiny_pipeline
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.image_size import ImageSize
from twinflow_core.plan.encode_needs import _build, _peak, encode_needs
from twinflow_core.plan.named_models import (
    PARTS,
    PlannedModel,
    _published_part,
    model_in,
    model_names,
    named_model,
)
from twinflow_core.plan.storage_ledger import StorageLedger

# What the networks' publishers say, in billions.
PUBLISHED = {
    "clip-l": 0.1237, "clip-l-unprojected": 0.1231, "clip-g": 0.6947, "t5-xxl": 4.762, "gemma-2-2b": 2.614,
    "qwen3-4b": 4.022, "qwen3-4b-lm": 4.022, "qwen3-8b-lm": 8.191, "qwen2.5-vl-7b": 8.292,
    "mistral-small-3.2-24b": 24.01, "vae-f8c16": 0.0838, "vae-flux.2": 0.084, "vae-qwen-image": 0.1269,
    "dc-ae-f32c32": 0.3123,
}  # fmt: skip
SIZE = ImageSize(32, 32)
FAMILIES: list[Callable[[Path], Path]] = [
    build_tiny_pipeline,
    build_tiny_sana,
    build_tiny_qwen_image,
    build_tiny_z_image,
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_networks_have_their_published_size(name: str) -> None:
    network = _build(_published_part(name, name))
    assert sum(each.numel() for each in network.parameters()) / 1e9 == pytest.approx(
        PUBLISHED[name], rel=0.003
    )


def test_every_network_is_part_of_a_named_model_and_every_named_model_has_its_parts() -> None:
    assert {path.name.removesuffix(".json") for path in PARTS.iterdir()} == set(PUBLISHED)
    used = {part.class_name for name in model_names() for part in named_model(name).parts}
    assert used == {_published_part(name, name).class_name for name in PUBLISHED}
    assert all(named_model(name).parts[-1].name == "vae" for name in model_names())


@pytest.mark.parametrize("build", FAMILIES, ids=lambda build: build.__name__.removeprefix("build_tiny_"))
def test_the_parts_of_a_folder_are_counted_and_run(build: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = build(tmp_path)
    needs = encode_needs(model_in(folder), 1000, 7, SIZE)
    assert needs is not None
    pipeline = load_backbone(folder).pipeline
    real = {
        name: sum(each.numel() for each in part.parameters())
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module) and name != "transformer"
    }
    assert dict(needs.parameters) == real
    assert needs.weights == 4 * sum(real.values())
    assert needs.host == needs.weights + 4000
    for name, run in needs.runs.items():
        assert run.more > 0, name
        assert run.at(7) >= run.one
    at = needs.total
    assert 0 < needs.largest_batch(at) <= 7
    assert needs.largest_batch(needs.weights) == 0


def test_a_batch_of_images_takes_what_a_real_one_does(tiny_pipeline: Path) -> None:
    vae = load_backbone(tiny_pipeline).pipeline.vae
    ledger = StorageLedger([*vae.parameters(), *vae.buffers()])
    with ledger, torch.no_grad():
        vae.encode(torch.rand(5, 3, 32, 32))
    needs = encode_needs(model_in(tiny_pipeline), 0, 5, SIZE)
    assert needs is not None
    assert needs.runs["vae"].at(5) == pytest.approx(ledger.peak, rel=0.05)


def test_a_batch_of_prompts_takes_what_a_real_one_does(tiny_pipeline: Path) -> None:
    encoder = load_backbone(tiny_pipeline).pipeline.text_encoder
    ledger = StorageLedger([*encoder.parameters(), *encoder.buffers()])
    with ledger, torch.no_grad():
        encoder(torch.zeros(5, 12, dtype=torch.long), output_hidden_states=True)
    assert _peak(encoder.to("meta"), 5, 12, SIZE) == pytest.approx(ledger.peak, rel=0.1)


def test_a_model_whose_parts_are_not_known_has_no_needs() -> None:
    model = named_model("sana-0.6b")
    bare = PlannedModel(model.name, model.class_name, model.config, 512, "here")
    assert encode_needs(bare, 0, 1, SIZE) is None
