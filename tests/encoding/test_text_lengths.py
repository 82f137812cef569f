"""Texts of different lengths under a mask: a shard stores as many tokens as its longest text counts."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from tests.backbones.tiny_qwen_image import build_tiny_qwen_image
from tests.encoding.prepared_folder import Captions, write_prepared
from tests.pipeline_clone import REPOSITORY
from twinflow_core.backbones.conditioning import EMBEDS, MASK
from twinflow_core.params import load_params
from twinflow_core.stages.encode import encode
from twinflow_core.training.encoded import EncodedData

ROWS = list(range(12))


def lengthening(number: int) -> str:
    return "a red circle " * (number + 1)


def all_short(number: int) -> str:
    return "a red circle"


def make_root(root: Path, caption: Captions) -> Path:
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text())
    document["data"]["resolution"] = 16
    document["encode"]["batch_size"] = 4
    root.mkdir()
    (root / "params.yaml").write_text(yaml.safe_dump(document))
    build_tiny_qwen_image(root / "models/base")
    write_prepared(root, ROWS, caption)
    encode(load_params(root / "params.yaml"), root)
    return root


def shards(root: Path) -> dict[str, dict[str, Tensor]]:
    return {path.name: load_file(path) for path in sorted((root / "data/encoded").glob("*.safetensors"))}


def test_a_longer_text_is_stored_whole_and_training_reads_all_shards_as_one(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", lengthening)
    stored = shards(root)
    lengths = [shard[MASK].sum(1) for shard in stored.values()]
    for shard, counted in zip(stored.values(), lengths, strict=True):
        assert shard[EMBEDS].shape[1] == int(counted.max())
        assert not shard[EMBEDS][~shard[MASK]].any()
    assert len({shard[EMBEDS].shape[1] for shard in stored.values()}) > 1
    data = EncodedData.load(root / "data/encoded", "train")
    longest = data.conditioning[data.caption[torch.tensor([0, len(ROWS) - 1])]]
    assert longest.mask is not None
    assert int(longest.mask[1].sum()) > int(longest.mask[0].sum())


def test_what_the_cache_held_is_what_encoding_anew_gives(tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", lengthening)
    write_prepared(root, ROWS, all_short)
    encode(load_params(root / "params.yaml"), root)
    fresh = make_root(tmp_path / "fresh", all_short)
    for mine, theirs in zip(shards(root).values(), shards(fresh).values(), strict=True):
        assert torch.equal(mine[MASK], theirs[MASK])
        # A language model rounds a text's last bits by how many tokens its batch has.
        assert torch.allclose(mine[EMBEDS], theirs[EMBEDS], atol=1e-4)
