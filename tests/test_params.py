"""Sizes in params.yaml: what is no list of shapes is refused by its key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline_clone import REPOSITORY
from twinflow_core.errors import TwinflowError
from twinflow_core.image_size import ImageSize
from twinflow_core.params import Params, load_params


def loaded(folder: Path, buckets: Any) -> Params:
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text(encoding="utf-8"))
    document["data"]["buckets"] = buckets
    (folder / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_params(folder / "params.yaml")


def test_buckets_are_sizes_or_none(tmp_path: Path) -> None:
    assert loaded(tmp_path, None).data.buckets is None
    data = loaded(tmp_path, ["64x32", "32x64"]).data
    assert data.buckets == (ImageSize(64, 32), ImageSize(32, 64))
    assert data.model_validate(data.model_dump()) == data


def test_a_plan_is_for_the_largest_size_and_the_square_is_no_other_size(tmp_path: Path) -> None:
    params = loaded(tmp_path, None)
    assert (params.data.largest_size, params.other_sizes) == (ImageSize(32, 32), ())
    assert loaded(tmp_path, ["64x32", "64x64", "32x64"]).data.largest_size == ImageSize(64, 64)
    twice = (ImageSize(32, 64), params.data.square, ImageSize(32, 64))
    several = params.model_copy(update={"export": params.export.model_copy(update={"sizes": twice})})
    assert several.other_sizes == (ImageSize(32, 64),)


@pytest.mark.parametrize(
    ("buckets", "key", "says"),
    [
        (["64x32", "32*64"], "data.buckets.1", "write WIDTHxHEIGHT"),
        ([], "data.buckets", "at least 1"),
        (["64x32", "32x32", "128x64"], "data", "64x32 and 128x64 have one shape"),
    ],
)
def test_what_cannot_be_trained_at_is_refused_by_its_key(
    tmp_path: Path, buckets: list[str], key: str, says: str
) -> None:
    with pytest.raises(TwinflowError, match=says) as refused:
        loaded(tmp_path, buckets)
    assert refused.value.where.endswith(f": {key}")
