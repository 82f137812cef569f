"""The same pictures and captions packed in each way that is read: tar, parquet, Arrow, plain and hostile."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.source_folders import caption_of, encoded, picture

Packer = Callable[[Path, int], Path]
A_FILE = 20


def members(count: int) -> list[tuple[str, bytes]]:
    """The members of a WebDataset tar: `.png` and `.txt`, and a `.json` with a number."""
    found = []
    for number in range(count):
        found += [
            (f"{number:04d}.png", encoded(picture(number))),
            (f"{number:04d}.txt", caption_of(number).encode()),
            (f"{number:04d}.json", json.dumps({"number": number}).encode()),
        ]
    return found


def write_tar(path: Path, content: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    """A tar of these members, in this order; a `TarInfo` is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for member, body in content:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            if info.isreg():
                info.size = len(body)
            tar.addfile(info, io.BytesIO(body) if info.isreg() else None)
    return path


def write_tars(folder: Path, count: int) -> Path:
    """`shard-000.tar`, .. with 20 samples each."""
    content, each = members(count), 3 * A_FILE
    for number, first in enumerate(range(0, len(content), each)):
        write_tar(folder / f"shard-{number:03d}.tar", content[first : first + each])
    return folder


def table(count: int, **others: list[Any]) -> pa.Table:
    """Columns `image` (bytes and path, as `datasets` keeps them), `text` and `number`."""
    images = [{"bytes": encoded(picture(number)), "path": f"{number}.png"} for number in range(count)]
    texts = [caption_of(number) for number in range(count)]
    return pa.table({"image": images, "text": texts, "number": list(range(count)), **others})


def write_parquet(folder: Path, count: int) -> Path:
    """`data/train-00000-of-00002.parquet`, .., as a set of the hub is laid out, with its README."""
    whole = table(count)
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("---\n---\n")
    half = (count + 1) // 2
    for number in range(2):
        path = folder / f"data/train-{number:05d}-of-00002.parquet"
        pq.write_table(whole.slice(number * half, half), path, row_group_size=7)
    return folder


def write_arrow(folder: Path, count: int) -> Path:
    """As `save_to_disk` writes it, with a cache file of a later `map` beside it."""
    folder.mkdir(parents=True)
    whole = table(count)
    half = (count + 1) // 2
    names = [f"data-{number:05d}-of-00002.arrow" for number in range(2)]
    for number, name in enumerate(names):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, whole.schema) as writer:
            writer.write_table(whole.slice(number * half, half), max_chunksize=9)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    (folder / "cache-0123456789abcdef.arrow").write_bytes((folder / names[0]).read_bytes())
    return folder


PACKERS: dict[str, Packer] = {"tar": write_tars, "parquet": write_parquet, "arrow": write_arrow}
