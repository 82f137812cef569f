"""Captions of a megabyte and of every Unicode plane, from the folder to the text encoder, in bounded time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.pipeline_clone import REPOSITORY
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.data.shards import read_rows
from twinflow_core.params import load_params
from twinflow_core.report.grid import GridRow, comparison_grid
from twinflow_core.stages.prepare import prepare
from twinflow_core.stages.raw import raw

# One letter in every 97 of all that Unicode has room for; surrogates are no characters.
EVERY_PLANE = "".join(chr(code) for code in range(1, 0x110000, 97) if not 0xD800 <= code < 0xE000)
CAPTIONS = ["x" * 1_000_000, "a red circle " * 8_000, EVERY_PLANE, "\u202e\u0000\u200f gnol", "🟥" * 25_000]


@pytest.fixture(scope="module")
def prepared(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    source = folder / "source"
    source.mkdir()
    noise = np.random.default_rng(0)
    lines = []
    for number in range(12):
        name = f"{number:02d}.png"
        Image.fromarray(noise.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(source / name)
        caption = CAPTIONS[number] if number < len(CAPTIONS) else f"plain {number}"
        lines.append(json.dumps({"file_name": name, "text": caption}))
    (source / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text())
    document["data"] |= {"source": str(source), "max_rejected": 0.0, "validation": 0.4}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    params = load_params(folder / "params.yaml")
    raw(params, folder)
    prepare(params, folder)
    return folder


def test_every_caption_comes_through_unchanged(prepared: Path) -> None:
    kept = {
        row.caption
        for split in ("train", "validation")
        for row in read_rows(prepared / "data/prepared", split)
    }
    assert {" ".join(caption.split()) for caption in CAPTIONS} <= kept


def test_the_text_encoder_reads_their_beginning(tiny_pipeline: Path) -> None:
    backbone = load_backbone(tiny_pipeline)
    start = time.process_time()
    embeds = backbone.encode_prompts([caption[:100_000] for caption in CAPTIONS]).prompt_embeds
    assert embeds.shape[0] == len(CAPTIONS)
    assert bool(embeds.isfinite().all())
    assert time.process_time() - start < 30


def test_the_picture_of_samples_cuts_them(tiny_pipeline: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    start = time.process_time()
    comparison_grid([GridRow(caption, [pixels], [pixels]) for caption in CAPTIONS])
    assert time.process_time() - start < 20
