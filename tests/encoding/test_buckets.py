"""Images of several shapes, each encoded at the size of its bucket, and found again when buckets change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.encoding.prepared_folder import HELD_OUT, write_prepared
from tests.pipeline_clone import REPOSITORY
from tests.source_folders import caption_of
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.data.decode import decode_rgb, fit
from twinflow_core.data.shards import read_rows
from twinflow_core.encoding.shard import to_signed
from twinflow_core.encoding.shard_files import CAPTION_KEYS, LATENT_KEYS, encoded_shards
from twinflow_core.errors import TwinflowError
from twinflow_core.image_size import ImageSize, nearest_shape
from twinflow_core.params import load_params
from twinflow_core.stages.encode import encode
from twinflow_core.stages.finetune import finetune
from twinflow_core.training.encoded import EncodedData

NUMBERS = list(range(20))
ROWS = len(NUMBERS) + HELD_OUT
BUCKETS = ["48x24", "32x32", "24x40"]
SIZES = [ImageSize(*size) for size in ((64, 30), (40, 40), (30, 50), (100, 40), (36, 33))]


def size_of(number: int) -> ImageSize:
    return SIZES[number % len(SIZES)]


def encode_at(root: Path, buckets: list[str] | None) -> EncodedData:
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text(encoding="utf-8"))
    document["encode"]["batch_size"] = 4
    document["data"]["buckets"] = buckets
    (root / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    encode(load_params(root / "params.yaml"), root)
    return EncodedData.load(root / "data/encoded", "train")


@pytest.fixture(scope="module")
def encoded_once(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("buckets") / "root"
    write_prepared(root, NUMBERS, size=size_of)
    (root / "models").mkdir()
    (root / "models/base").symlink_to(tiny_pipeline)
    encode_at(root, BUCKETS)
    return root


@pytest.fixture
def root(encoded_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(encoded_once, tmp_path / "root", symlinks=True)


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "data/encoded").iterdir()}


def test_each_row_is_encoded_at_the_size_of_its_bucket(encoded_once: Path) -> None:
    data = EncodedData.load(encoded_once / "data/encoded", "train")
    buckets = [ImageSize.read(name) for name in BUCKETS]
    backbone = load_backbone(encoded_once / "models/base")
    rows = list(read_rows(encoded_once / "data/prepared", "train"))
    assert [bucket.name for bucket in data.buckets] == sorted(BUCKETS)
    for bucket in data.buckets:
        size = ImageSize.read(bucket.name)
        own = [row for row in rows if nearest_shape(buckets, ImageSize(row.width, row.height)) == size]
        images = [fit(decode_rgb(row.image), *size) for row in own]
        numbers = torch.tensor(list(bucket.rows))
        with torch.no_grad():
            expected = torch.cat([backbone.encode_images(to_signed(image[None])) for image in images])
        assert bucket.shape == (4, size.height // 4, size.width // 4) == tuple(expected.shape[1:])
        assert torch.allclose(data.latents[numbers], expected, atol=1e-5)
        prompts = backbone.encode_prompts([row.caption for row in own]).prompt_embeds
        assert torch.allclose(data.conditioning[data.caption[numbers]].prompt_embeds, prompts, atol=1e-5)
    assert sum(len(bucket.rows) for bucket in data.buckets) == len(data) == len(NUMBERS)


def test_a_shard_holds_one_bucket_of_one_prepared_shard(encoded_once: Path) -> None:
    names = [path.stem for path in encoded_shards(encoded_once / "data/encoded", "train")]
    assert names == [f"train-{bucket}-0000{shard}" for bucket in sorted(BUCKETS) for shard in range(3)]


def test_again_encodes_nothing_and_gives_the_same_bytes(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(root)
    encode_at(root, BUCKETS)
    said = capsys.readouterr().out
    assert said.startswith(f"0 of {ROWS} images and 0 captions")
    assert "Images by bucket: 48x24 9, 32x32 9, 24x40 5." in said
    assert files(root) == before


def test_a_bucket_less_encodes_the_rows_that_move_alone(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = encode_at(root, BUCKETS[1:])
    moved = sum(size_of(number).width >= 60 for number in [*NUMBERS, 900, 901, 902])
    assert capsys.readouterr().out.startswith(f"{moved} of {ROWS} images and 0 captions")
    assert [bucket.name for bucket in data.buckets] == ["24x40", "32x32"]


def test_without_buckets_all_are_squares_and_those_of_the_square_bucket_are_known(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    square = {
        bytes(key)
        for path in encoded_shards(root / "data/encoded", "train")
        if "32x32" in path.stem
        for key in load_file(path)[LATENT_KEYS].numpy()
    }
    data = encode_at(root, None)
    assert capsys.readouterr().out.startswith(f"{ROWS - 9} of {ROWS} images and 0 captions")
    assert [(bucket.name, bucket.shape) for bucket in data.buckets] == [("", (4, 8, 8))]
    shards = encoded_shards(root / "data/encoded", "train")
    assert [path.stem for path in shards] == [f"train-0000{shard}" for shard in range(3)]
    assert square < {bytes(key) for path in shards for key in load_file(path)[LATENT_KEYS].numpy()}
    first = load_file(shards[0])
    assert len(first[CAPTION_KEYS]) == len({"", *map(caption_of, NUMBERS[: len(first[LATENT_KEYS])])})


def test_a_bucket_with_fewer_images_than_a_batch_stops_the_training(root: Path) -> None:
    with pytest.raises(TwinflowError, match="Bucket 24x40 has 4 training image") as refused:
        finetune(load_params(root / "params.yaml"), root)
    assert "finetune.batch_size" in refused.value.where
    assert not (root / "models/candidate").exists()


@pytest.mark.parametrize(
    ("buckets", "says"),
    [(["32x32", "48x20"], "multiples of 8 pixels, not 48x20"), (["32x32", "128x64"], "at most 96 pixels")],
)
def test_a_bucket_that_the_model_does_not_make_is_refused_before_anything_is_encoded(
    root: Path, buckets: list[str], says: str
) -> None:
    before = files(root)
    with pytest.raises(TwinflowError, match=says) as refused:
        encode_at(root, buckets)
    assert refused.value.where == "params.yaml: data.buckets"
    assert files(root) == before
