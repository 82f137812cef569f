"""Stage `prepare`: data/raw -> data/prepared, usable rows as parquet shards and the reason for every other.

A bad row is rejected with its reason and the stage goes on; too many of them stop it before anything is
written. Rows are checked piece by piece by several processes; one process then compares them in their order,
so that the result depends on neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from twinflow_core.data.duplicates import DuplicateIndex
from twinflow_core.data.examine import Examined, ExamineTask, Rejected, examine, pieces_of, read_part
from twinflow_core.data.samples import Columns
from twinflow_core.data.shards import ShardWriter
from twinflow_core.data.source_files import list_files
from twinflow_core.data.sources import Pair, find_pairs
from twinflow_core.data.splits import split_of
from twinflow_core.data.summary import Summary
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.errors import TwinflowError
from twinflow_core.params import Params, RunParams
from twinflow_core.progress import Reporter
from twinflow_core.stages.entry import run_stage
from twinflow_core.worker_processes import cluster_of, map_shards

RAW = Path("data/raw")
PREPARED = Path("data/prepared")
PARTS = ".parts"
# Loose images that a process takes at a time. The result does not depend on it.
_PIECE_ROWS = 512


def prepare(params: Params, root: Path) -> None:
    """Check every row of data/raw and write data/prepared.

    Args:
        params: reads `data`, and `run.workers`.
        root: the folder that holds dvc.yaml.

    Raises:
        TwinflowError: data/raw is missing, empty or has malformed metadata; a packed file is damaged; too many
            rows are rejected; a split is empty. data/prepared is then left as it was.
    """
    settings = params.data
    if not (root / RAW).is_dir():
        raise TwinflowError(
            "The raw data is missing.",
            where=str(root / RAW),
            fix="Run the stage `raw` first (or `dvc repro`).",
        )
    count, pieces = _pieces(root / RAW)
    with (
        whole_folder(root / PREPARED) as folder,
        Summary(folder) as summary,
        DuplicateIndex(settings.near_duplicate_bits, folder) as seen,
        ShardWriter(folder, "train", settings.rows_per_shard) as train,
        ShardWriter(folder, "validation", settings.rows_per_shard) as validation,
    ):
        (folder / PARTS).mkdir()
        tasks = (_task(params, root, folder, number, piece) for number, piece in enumerate(pieces))
        for number, found in enumerate(_examined(tasks, count, params.run)):
            if isinstance(found, Rejected):
                summary.reject(number, found.file_name, found.rejection)
                continue
            row, print_ = found.row, found.fingerprint
            relation = seen.relate(print_, row.file_name, row.caption)
            if relation.rejection:
                summary.reject(number, row.file_name, relation.rejection)
                continue
            split = relation.split or split_of(row.sha256, settings.validation)
            seen.add(print_, row.file_name, row.caption, split)
            (train if split == "train" else validation).write(row)
            summary.keep(row, split)
        (folder / PARTS).rmdir()
        summary.demand_enough(settings.max_rejected, settings.source)
        summary.write()


def _pieces(raw: Path) -> tuple[int, Iterator[tuple[Pair, ...] | str]]:
    """How many there are and what one process works on at a time: some loose images, or a packed file."""
    files = list_files(raw)
    if files.packed:
        return len(files.packed), iter(files.packed)
    pairs = find_pairs(raw, files)
    return math.ceil(len(pairs) / _PIECE_ROWS), pieces_of(iter(pairs), _PIECE_ROWS)


def _task(
    params: Params, root: Path, folder: Path, number: int, piece: tuple[Pair, ...] | str
) -> ExamineTask:
    data = params.data
    columns = Columns(data.image_column, data.caption_column)
    part = folder / PARTS / f"{number:06d}.parquet"
    return ExamineTask(root / RAW, piece, part, columns, data.min_side, data.max_pixels)


def _examined(tasks: Iterable[ExamineTask], count: int, run: RunParams) -> Iterator[Examined | Rejected]:
    """The rows of all pieces in their order. A part is removed once it is read."""
    with Reporter("prepare", count) as reporter:
        for done, part in enumerate(map_shards(examine, tasks, run.workers, cluster_of(run)), start=1):
            yield from read_part(part)
            part.unlink()
            reporter.update(done)


if __name__ == "__main__":
    run_stage(prepare)
