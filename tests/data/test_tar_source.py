"""Samples come out of a tar as they went in; what is hostile is rejected by row, what is damaged is told."""

from __future__ import annotations

import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.packed_sources import members, write_tar
from tests.source_folders import caption_of, encoded, picture
from twinflow_core.data.rejections import Reason
from twinflow_core.data.samples import Columns, Sample
from twinflow_core.data.tar_source import read_tar
from twinflow_core.errors import TwinflowError

MOST_PIXELS = 100_000
PNG = encoded(picture(0))


def _read(path: Path, columns: Columns = Columns()) -> list[Sample]:  # noqa: B008
    return list(read_tar(path, "a.tar", columns, MOST_PIXELS))


def _only(path: Path, columns: Columns = Columns()) -> Sample:  # noqa: B008
    (sample,) = _read(path, columns)
    return sample


def _reason(sample: Sample) -> Reason | None:
    return sample.rejection and sample.rejection.reason


def test_samples_come_back_in_order(tmp_path: Path) -> None:
    samples = _read(write_tar(tmp_path / "a.tar", members(30)))
    assert [sample.file_name for sample in samples] == [f"a.tar/{n:04d}.png" for n in range(30)]
    assert [sample.image for sample in samples] == [encoded(picture(n)) for n in range(30)]
    assert [sample.caption for sample in samples] == [caption_of(n) for n in range(30)]
    assert [json.loads(sample.metadata) for sample in samples] == [{"number": n} for n in range(30)]


@pytest.mark.parametrize(
    ("endings", "columns", "caption", "metadata"),
    [
        ({"txt": b" a  dog\n"}, Columns(), "a dog", ""),
        ({"json": b'{"caption": "a cat", "b": 2, "a": [1]}'}, Columns(), "a cat", '{"a": [1], "b": 2}'),
        ({"txt": b"first", "json": b'{"caption": "second"}'}, Columns(), "first", '{"caption": "second"}'),
        ({"txt": b"first", "json": b'{"long": "second"}'}, Columns(caption="long"), "second", ""),
        ({"long.txt": b"long", "txt": b"short"}, Columns(caption="long.txt"), "long", ""),
    ],
)
def test_where_the_caption_is(
    tmp_path: Path, endings: dict[str, bytes], columns: Columns, caption: str, metadata: str
) -> None:
    content = [("x/1.PNG", PNG), *((f"x/1.{ending}", body) for ending, body in endings.items())]
    sample = _only(write_tar(tmp_path / "a.tar", content), columns)
    assert (sample.file_name, sample.image, sample.rejection) == ("a.tar/x/1.PNG", PNG, None)
    assert (sample.caption, sample.metadata) == (caption, metadata)


def test_one_of_several_images_must_be_named(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar", [("1.png", PNG), ("1.mask.png", b"m"), ("1.jpg", b"j"), ("1.txt", b"c")]
    )
    assert _reason(_only(path)) == Reason.UNSUPPORTED_FORMAT
    assert _only(path, Columns(image="png")).image == PNG
    assert _only(path, Columns(image="mask.png")).image == b"m"


def _link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("1.png")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("member", "body", "reason"),
    [
        ("../../1.png", PNG, Reason.UNSAFE_MEMBER),
        ("/etc/1.png", PNG, Reason.UNSAFE_MEMBER),
        ("a/../1.png", PNG, Reason.UNSAFE_MEMBER),
        (_link(tarfile.SYMTYPE), b"", Reason.UNSAFE_MEMBER),
        (_link(tarfile.LNKTYPE), b"", Reason.UNSAFE_MEMBER),
        (_link(tarfile.FIFOTYPE), b"", Reason.UNSAFE_MEMBER),
        (_link(tarfile.CHRTYPE), b"", Reason.UNSAFE_MEMBER),
        (_link(tarfile.GNUTYPE_SPARSE), b"", Reason.UNSAFE_MEMBER),
        ("1.png", bytes(8 * MOST_PIXELS + 2**20 + 1), Reason.TOO_MANY_BYTES),
        ("1.heic", PNG, Reason.UNSUPPORTED_FORMAT),
        ("1.json", b"{}", Reason.MISSING_FILE),
    ],
)
def test_a_hostile_or_useless_sample_is_rejected_and_the_next_is_read(
    tmp_path: Path, member: str | tarfile.TarInfo, body: bytes, reason: Reason
) -> None:
    name = member if isinstance(member, str) else member.name
    content = [(member, body), (name.rsplit(".", 1)[0] + ".txt", b"c"), ("2.png", PNG), ("2.txt", b"c")]
    hostile, good = _read(write_tar(tmp_path / "a.tar", content))
    assert _reason(hostile) == reason
    assert hostile.image is None
    assert (good.image, good.rejection) == (PNG, None)


@pytest.mark.parametrize(
    "text",
    [b"\xff\xfe", b'{"caption": ', b"[1]", b'{"caption": 3}', b'{"caption": "\\ud800"}', b"[" * 100_000],
)
def test_an_unreadable_caption_is_rejected(tmp_path: Path, text: bytes) -> None:
    ending = "txt" if text == b"\xff\xfe" else "json"
    sample = _only(write_tar(tmp_path / "a.tar", [("1.png", PNG), (f"1.{ending}", text)]))
    assert _reason(sample) == Reason.UNREADABLE_CAPTION
    sample.file_name.encode()


def test_a_name_that_is_no_unicode_can_be_stored(tmp_path: Path) -> None:
    sample = _only(write_tar(tmp_path / "a.tar", [("\udcff.png", PNG), ("\udcff.txt", b"c")]))
    assert sample.file_name == "a.tar/\\udcff.png"


def test_strangers_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    content = [("README.md", b"x"), ("._1.png", b"mac"), ("1.png", PNG), ("1.txt", b"c"), ("1.npy", b"n")]
    assert _only(write_tar(tmp_path / "a.tar", content)).image == PNG


@pytest.mark.parametrize("cut", [100, 1000, 4000])
def test_a_tar_that_was_cut_off_is_told(tmp_path: Path, cut: int) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.png", PNG), ("1.txt", b"c"), ("2.png", PNG)])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TwinflowError, match="damaged") as caught:
        _read(path)
    assert str(path) in caught.value.where


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.txt", b"c"), ("2.txt", b"d")])
    content = bytearray(path.read_bytes())
    content[1024 + 150] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(TwinflowError, match="damaged"):
        _read(path)


def test_compressed_and_other_files_are_told(tmp_path: Path) -> None:
    for number, content in enumerate((b"\x1f\x8b" + bytes(600), b"text", b"x" * 2000)):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(content)
        with pytest.raises(TwinflowError, match="damaged"):
            _read(path)


def test_a_header_that_asks_for_gigabytes_costs_none(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**33 - 1
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(2**33 + 4096)
    tracemalloc.start()
    with pytest.raises(TwinflowError, match="damaged"):
        _read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@given(st.binary(max_size=3000), st.integers(0, 6000))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_samples_or_the_one_error(tmp_path_factory, noise: bytes, place: int) -> None:
    path = write_tar(tmp_path_factory.mktemp("tar") / "a.tar", members(2))
    content = bytearray(path.read_bytes())
    content[place : place + len(noise)] = noise
    path.write_bytes(content)
    try:
        for sample in _read(path):
            sample.file_name.encode()
    except TwinflowError:
        return
