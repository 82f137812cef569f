"""Which files of a source are read: braces and wildcards, one kind, no caches and no lists."""

from __future__ import annotations

import pytest

from twinflow_core.data.source_files import matching, sort_files
from twinflow_core.errors import TwinflowError

NAMES = ["a/1.tar", "a/2.tar", "b/1.tar", "shard-08.tar", "shard-09.tar", "shard-10.tar"]


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        (None, NAMES),
        ("*.tar", NAMES),
        ("a/*", ["a/1.tar", "a/2.tar"]),
        ("{a,b}/1.tar", ["a/1.tar", "b/1.tar"]),
        ("shard-{08..10}.tar", NAMES[3:]),
        ("{a,shard}*{1,9}.tar", ["a/1.tar", "shard-09.tar"]),
        ("a/[2-9].tar", ["a/2.tar"]),
    ],
)
def test_a_pattern_chooses(pattern: str | None, chosen: list[str]) -> None:
    assert list(matching(NAMES, pattern)) == chosen


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("shard-{08..11}.tar", "shard-11.tar"),
        ("*.parquet", "chooses none"),
        ("{0..999999999}.tar", "stands for"),
        ("{0..9999}{0..9999}{0..9999}", "stands for"),
    ],
)
def test_a_wrong_pattern_is_told(pattern: str, says: str) -> None:
    with pytest.raises(TwinflowError, match=says):
        list(matching(NAMES, pattern))


def test_lists_beside_tars_and_caches_of_datasets_are_passed_over() -> None:
    # As img2dataset writes it.
    assert sort_files(["00000.parquet", "00000.tar", "00000_stats.json"], "x").packed == ["00000.tar"]
    names = ["train/cache-12.arrow", "train/data-00000-of-00001.arrow", "train/state.json", ".git/x.arrow"]
    assert sort_files(names, "x").packed == ["train/data-00000-of-00001.arrow"]


@pytest.mark.parametrize(
    "names",
    [["a.tar", "b.parquet"], ["a.png", "a.tar"], ["a.arrow", "b.parquet"], ["a.png", "metadata.parquet"]],
)
def test_a_source_of_two_kinds_is_refused(names: list[str]) -> None:
    with pytest.raises(TwinflowError, match="several kinds") as caught:
        sort_files(names, "the source")
    assert "data.files" in caught.value.fix
