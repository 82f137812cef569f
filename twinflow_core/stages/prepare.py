"""Stage `prepare`: data/raw -> data/prepared, usable rows as parquet shards and the reason for every other.

A bad row is rejected with its reason and the stage goes on; too many of them stop it before anything is
written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from twinflow_core.data.checks import check_image
from twinflow_core.data.duplicates import DuplicateIndex, Fingerprint, fingerprint
from twinflow_core.data.rejections import Reason, Rejection
from twinflow_core.data.shards import Row, ShardWriter
from twinflow_core.data.sources import Pair, find_pairs
from twinflow_core.data.splits import split_of
from twinflow_core.data.summary import Summary
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.errors import TwinflowError
from twinflow_core.params import DataParams, Params
from twinflow_core.progress import track
from twinflow_core.stages.entry import run_stage

RAW = Path("data/raw")
PREPARED = Path("data/prepared")
# Images in memory at a time, and decoded at a time; the result depends on neither.
_WINDOW = 64
_MOST_THREADS = 8


@dataclass(frozen=True, slots=True)
class _Examined:
    row: Row
    fingerprint: Fingerprint


def prepare(params: Params, root: Path) -> None:
    """Check every row of data/raw and write data/prepared.

    Args:
        params: reads `data`.
        root: the folder that holds dvc.yaml.

    Raises:
        TwinflowError: data/raw is missing, empty or has malformed metadata; too many rows are rejected; a
            split is empty. data/prepared is then left as it was.
    """
    settings = params.data
    if not (root / RAW).is_dir():
        raise TwinflowError(
            "The raw data is missing.",
            where=str(root / RAW),
            fix="Run the stage `raw` first (or `dvc repro`).",
        )
    pairs = find_pairs(root / RAW)
    summary = Summary()
    seen = DuplicateIndex(settings.near_duplicate_bits)
    with (
        whole_folder(root / PREPARED) as folder,
        ShardWriter(folder, "train", settings.rows_per_shard) as train,
        ShardWriter(folder, "validation", settings.rows_per_shard) as validation,
    ):
        examined = track(_examine_all(pairs, root / RAW, settings), "prepare", len(pairs))
        for number, (pair, found) in enumerate(zip(pairs, examined, strict=True)):
            if isinstance(found, Rejection):
                summary.reject(number, pair.file_name, found)
                continue
            relation = seen.relate(found.fingerprint, pair.file_name, pair.caption)
            if relation.rejection:
                summary.reject(number, pair.file_name, relation.rejection)
                continue
            split = relation.split or split_of(found.row.sha256, settings.validation)
            seen.add(found.fingerprint, pair.file_name, pair.caption, split)
            (train if split == "train" else validation).write(found.row)
            summary.keep(found.row, split)
        summary.demand_enough(settings.max_rejected, settings.source)
        summary.write(folder)


def _examine_all(pairs: list[Pair], folder: Path, settings: DataParams) -> Iterator[_Examined | Rejection]:
    """Read, check and fingerprint the rows on all cores, in order, a window of them at a time."""
    examine = partial(_examine, folder=folder, settings=settings)
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
        for start in range(0, len(pairs), _WINDOW):
            yield from threads.map(examine, pairs[start : start + _WINDOW])


def _examine(pair: Pair, folder: Path, settings: DataParams) -> _Examined | Rejection:
    if pair.rejection:
        return pair.rejection
    try:
        content = (folder / pair.file_name).read_bytes()
    except OSError as error:
        return Rejection(Reason.DAMAGED, f"cannot be read: {error.strerror}")
    image = check_image(content, settings.min_side, settings.max_pixels)
    if isinstance(image, Rejection):
        return image
    print_ = fingerprint(content, image)
    height, width = image.shape[:2]
    row = Row(pair.file_name, content, pair.caption, width, height, print_.content, pair.metadata)
    return _Examined(row, print_)


if __name__ == "__main__":
    run_stage(prepare)
