"""Any folder gives the same rows in the same order, and every fault names where it is."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.source_folders import (
    CAPTION_FORMS,
    CaptionForm,
    caption_of,
    encoded,
    picture,
    write_jsonl,
    write_source,
)
from twinflow_core.data.metadata_files import read_metadata
from twinflow_core.data.rejections import Reason
from twinflow_core.data.source_files import list_files
from twinflow_core.data.sources import find_pairs
from twinflow_core.errors import TwinflowError

PNG = encoded(picture(0))


def _put(folder: Path, *names: str, content: bytes = PNG) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _reason(folder: Path, name: str) -> Reason | None:
    rejection = next(pair.rejection for pair in find_pairs(folder) if pair.file_name == name)
    return rejection.reason if rejection else None


@pytest.mark.parametrize("form", CAPTION_FORMS)
def test_each_form_of_captions_gives_the_same_rows(tmp_path: Path, form: CaptionForm) -> None:
    pairs = list(find_pairs(write_source(tmp_path / "source", 9, form)))
    assert [pair.file_name for pair in pairs] == [f"pictures/{i:04d}.png" for i in range(9)]
    assert [pair.caption for pair in pairs] == [caption_of(i) for i in range(9)]
    assert all(pair.rejection is None and pair.metadata == "" for pair in pairs)


def test_nested_metadata_is_relative_to_its_own_folder(tmp_path: Path) -> None:
    _put(tmp_path, "one/a.png", "two/deep/b.png", "two/c.PNG", "d.png")
    write_jsonl(tmp_path / "one", [{"file_name": "a.png", "text": "one"}])
    write_jsonl(
        tmp_path / "two", [{"file_name": "deep/b.png", "text": "two"}, {"file_name": "./c.PNG", "text": "3"}]
    )
    (tmp_path / "d.txt").write_text("four")
    assert [(p.file_name, p.caption) for p in find_pairs(tmp_path)] == [
        ("d.png", "four"),
        ("one/a.png", "one"),
        ("two/c.PNG", "3"),
        ("two/deep/b.png", "two"),
    ]


def test_other_columns_become_metadata_with_sorted_keys(tmp_path: Path) -> None:
    _put(tmp_path, "a.png", "sub/b.png")
    write_jsonl(tmp_path, [{"text": "x", "z": 1, "file_name": "a.png", "include": [{"class": "dog"}]}])
    (tmp_path / "sub/metadata.csv").write_text("file_name,text,tag\nb.png,y,left\n")
    first, second = [pair.metadata for pair in find_pairs(tmp_path)]
    assert [json.loads(first), json.loads(second)] == [
        {"include": [{"class": "dog"}], "z": 1},
        {"tag": "left"},
    ]
    assert first.index("include") < first.index("z")


def test_captions_lose_their_outer_and_repeated_white_space(tmp_path: Path) -> None:
    _put(tmp_path, "a.png")
    (tmp_path / "a.txt").write_text("\ufeff  a dog \r\n\t in  snow\n", encoding="utf-8")
    assert next(iter(find_pairs(tmp_path))).caption == "a dog in snow"


def test_a_metadata_row_goes_before_a_txt_beside_the_image(tmp_path: Path) -> None:
    _put(tmp_path, "a.png")
    (tmp_path / "a.txt").write_text("from txt")
    write_jsonl(tmp_path, [{"file_name": "a.png", "text": "from metadata"}])
    assert [pair.caption for pair in find_pairs(tmp_path)] == ["from metadata"]


def test_rows_without_a_usable_image_or_caption_are_rejected_and_not_dropped(tmp_path: Path) -> None:
    _put(
        tmp_path,
        "blank.png",
        "bare.png",
        "null.png",
        "number.png",
        "half.png",
        "latin.png",
        "phone.heic",
        "ok.png",
    )
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "phone.txt").write_text("a phone's picture")
    write_jsonl(
        tmp_path,
        [
            {"file_name": "ok.png", "text": "fine"},
            {"file_name": "null.png", "text": None},
            {"file_name": "number.png", "text": 7},
            {"file_name": "half.png", "text": "\ud800"},
            {"file_name": "gone.png", "text": "gone"},
            {"file_name": "clip.mp4", "text": "a film"},
        ],
    )
    assert {pair.file_name: pair.rejection and pair.rejection.reason for pair in find_pairs(tmp_path)} == {
        "ok.png": None,
        "blank.png": Reason.NO_CAPTION,
        "bare.png": Reason.NO_CAPTION,
        "null.png": Reason.NO_CAPTION,
        "number.png": Reason.UNREADABLE_CAPTION,
        "half.png": Reason.UNREADABLE_CAPTION,
        "latin.png": Reason.UNREADABLE_CAPTION,
        "phone.heic": Reason.UNSUPPORTED_FORMAT,
        "gone.png": Reason.MISSING_FILE,
        "clip.mp4": Reason.UNSUPPORTED_FORMAT,
    }


def test_hidden_files_and_strangers_are_passed_over(tmp_path: Path) -> None:
    _put(tmp_path, "a.png", "._a.png", ".cache/b.png", "notes.docx", "LICENSE.txt", "a.json")
    (tmp_path / "a.txt").write_text("a")
    assert list(list_files(tmp_path).all_names()) == ["a.png", "a.txt"]


def test_rows_are_sorted_by_their_whole_names_wherever_they_come_from(tmp_path: Path) -> None:
    names = ["a.png", "a/b.png", "a-b.png", "a/c/d.png", "b.png"]
    _put(tmp_path, *names)
    write_jsonl(tmp_path, [{"file_name": name, "text": name} for name in ("b.png", "a/b.png")])
    pairs = find_pairs(tmp_path)
    # Iterated twice: the stages look at them more than once.
    assert [pair.file_name for pair in pairs] == [pair.file_name for pair in pairs] == sorted(names)
    assert len(pairs) == len(names)


def test_images_that_differ_by_their_suffix_share_one_caption(tmp_path: Path) -> None:
    _put(tmp_path, "a.jpg", "a.k.png", "a.png")
    (tmp_path / "a.txt").write_text("both")
    assert [pair.caption for pair in find_pairs(tmp_path)] == ["both", "", "both"]
    assert list(list_files(tmp_path).all_names()) == ["a.jpg", "a.k.png", "a.png", "a.txt"]


def test_two_captions_of_one_image_are_two_rows(tmp_path: Path) -> None:
    _put(tmp_path, "a.png")
    write_jsonl(tmp_path, [{"file_name": "a.png", "text": "second"}, {"file_name": "a.png", "text": "first"}])
    assert [pair.caption for pair in find_pairs(tmp_path)] == ["second", "first"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder.rmdir(), "missing"),
        (lambda folder: (folder.rmdir(), folder.write_text("a file")), "not a folder"),
        (lambda folder: None, "no images"),
        (
            lambda folder: (_put(folder, "a.png"), write_jsonl(folder, []), _put(folder, "metadata.csv")),
            "both",
        ),
        (lambda folder: _put(folder, "metadata.jsonl", content=b"\xff\xfe"), "not UTF-8"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, make, says: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    make(folder)
    with pytest.raises(TwinflowError, match=says) as caught:
        find_pairs(folder)
    assert str(folder) in caught.value.where
    assert caught.value.fix


@pytest.mark.parametrize(
    ("name", "content", "line", "says"),
    [
        ("metadata.jsonl", '{"file_name": "a.png", "text": "x"}\n{"file_name": ', 2, "not JSON"),
        ("metadata.jsonl", '\n\n["a.png", "x"]\n', 3, "not a JSON object"),
        ("metadata.jsonl", '{"text": "x"}\n', 1, "`file_name`"),
        ("metadata.jsonl", '{"file_name": 3, "text": "x"}\n', 1, "`file_name`"),
        ("metadata.jsonl", '{"file_name": "\\ud800.png", "text": "x"}\n', 1, "Unicode"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "x", "score": NaN}\n', 1, "NaN"),
        ("metadata.jsonl", "[" * 100_000, 1, "not JSON"),
        ("metadata.csv", "name,text\na.png,x\n", 1, "no column `file_name`"),
        ("metadata.csv", "file_name,caption\na.png,x\n", 1, "no column `text`"),
        ("metadata.csv", "file_name,text,text\na.png,x,y\n", 1, "twice"),
        ("metadata.csv", "file_name,text\na.png,x\nb.png,one,two\n", 3, "3 cells"),
        ("metadata.csv", 'file_name,text\na.png,"x" y\n', 2, "not CSV"),
        ("metadata.csv", "file_name,text\n,x\n", 2, "`file_name`"),
    ],
)
def test_a_malformed_line_is_named_with_file_and_number(
    tmp_path: Path, name: str, content: str, line: int, says: str
) -> None:
    _put(tmp_path, "a.png")
    (tmp_path / name).write_text(content)
    with pytest.raises(TwinflowError, match=says) as caught:
        find_pairs(tmp_path)
    assert caught.value.where == f"{tmp_path / name}, line {line}"


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd.png", "a/../../b.png", ".."])
def test_a_row_that_leaves_the_folder_stops_with_its_line(tmp_path: Path, name: str) -> None:
    _put(tmp_path, "secret.png", "images/a.png")
    write_jsonl(tmp_path / "images", [{"file_name": "a.png", "text": "x"}, {"file_name": name, "text": "x"}])
    with pytest.raises(TwinflowError, match="outside the data folder") as caught:
        find_pairs(tmp_path / "images")
    assert caught.value.where.endswith("metadata.jsonl, line 2")


def test_a_nested_row_may_go_up_as_far_as_the_source_folder(tmp_path: Path) -> None:
    _put(tmp_path, "images/a.png")
    write_jsonl(tmp_path / "labels", [{"file_name": "../images/a.png", "text": "x"}])
    assert _reason(tmp_path, "images/a.png") is None


@pytest.mark.parametrize("target", ["secret.png", "elsewhere"])
def test_a_link_that_leaves_the_folder_stops(tmp_path: Path, target: str) -> None:
    _put(tmp_path, "secret.png", "elsewhere/b.png", "images/a.png")
    (tmp_path / "images/link.png").symlink_to(tmp_path / target)
    with pytest.raises(TwinflowError, match="link"):
        find_pairs(tmp_path / "images")


def test_a_name_that_is_not_utf8_stops_with_a_message_that_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(PNG)
    with pytest.raises(TwinflowError, match="UTF-8") as caught:
        find_pairs(tmp_path)
    caught.value.where.encode()


ROW = st.fixed_dictionaries({"file_name": st.text(), "text": st.text() | st.none() | st.integers()})


@given(st.lists(st.binary(max_size=80) | ROW.map(lambda row: json.dumps(row).encode()), max_size=6))
def test_any_bytes_in_metadata_give_rows_or_the_one_error(tmp_path_factory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("source")
    for name in ("metadata.jsonl", "metadata.csv"):
        (folder / name).write_bytes(b"\n".join([b"file_name,text"] * name.endswith("csv") + lines))
        with contextlib.suppress(TwinflowError):
            for row in read_metadata(folder, name):
                row.text.encode()
                row.file_name.encode()
