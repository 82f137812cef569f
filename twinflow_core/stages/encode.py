"""The `encode` stage: latents and prompt embeddings, made once: training runs no VAE and no text encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock

from twinflow_core.data.shards import count_rows, read_sizes, shard_paths
from twinflow_core.data.splits import SPLITS
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.encoding.cache import EncodeCache
from twinflow_core.encoding.identity import identify_encoders
from twinflow_core.encoding.shard import (
    EncodedShard,
    EncodeTask,
    encode_shard,
    loaded_backbone,
    release_encoders,
)
from twinflow_core.encoding.shard_files import shard_name
from twinflow_core.home import state_home
from twinflow_core.image_size import ImageSize, nearest_shape
from twinflow_core.params import DataParams, Params
from twinflow_core.progress import Reporter
from twinflow_core.stages.entry import run_stage
from twinflow_core.worker_processes import cluster_of, map_shards

OUTPUT = Path("data/encoded")
PREPARED = Path("data/prepared")
BASE = Path("models/base")
CACHE = Path("cache/encoded")


def encode(params: Params, root: Path) -> None:
    """Encode both splits of data/prepared with the models of models/base.

    What was encoded before is taken from a cache outside the output: rows of the last encoding, and the
    finished shards of one that was killed.

    Raises:
        TwinflowError: the base model does not make images of data.resolution, or of one of data.buckets.
    """
    cache = state_home(root) / CACHE
    cache.mkdir(parents=True, exist_ok=True)
    with whole_folder(root / OUTPUT) as output, FileLock(cache.with_suffix(".lock")):
        tasks = _tasks(params, root, output, cache)
        try:
            # Refuses a size that the model does not make, before any worker starts.
            for task in {task.size: task for task in tasks}.values():
                loaded_backbone(task)
            shards = list(_encoded(tasks, params, count_all(root / PREPARED)))
        finally:
            release_encoders()
        EncodeCache(cache).prune({shard.name for shard in shards})
    _say_what_was_done(shards)
    if params.data.buckets:
        _say_what_buckets_hold(params.data.buckets, tasks, shards)


def count_all(prepared: Path) -> int:
    """Rows of both splits."""
    return sum(count_rows(prepared, split) for split in SPLITS)


def _tasks(params: Params, root: Path, output: Path, cache: Path) -> list[EncodeTask]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Sums are rounded by how many threads share them.
    threads = f"{torch.get_num_threads()} threads"
    kind = torch.cuda.get_device_name() if device == "cuda" else threads
    base, buckets, batch_size = root / BASE, params.data.buckets or (), params.encode.batch_size
    encoders = identify_encoders(base, batch_size, kind)
    return [
        EncodeTask(source, output / name, base, cache, encoders, size, buckets, batch_size, device)
        for split in SPLITS
        for source in shard_paths(root / PREPARED, split)
        for name, size in _shards_of(source, params.data)
    ]


def _shards_of(source: Path, data: DataParams) -> list[tuple[str, ImageSize]]:
    """Name and size of each encoded shard of a prepared one: one of all its rows, or one of each bucket that it has."""
    if data.buckets is None:
        return [(shard_name(source, ""), ImageSize(data.resolution, data.resolution))]
    held = {nearest_shape(data.buckets, size) for size in set(read_sizes(source))}
    return [(shard_name(source, str(bucket)), bucket) for bucket in data.buckets if bucket in held]


def _encoded(tasks: list[EncodeTask], params: Params, rows: int) -> Iterator[EncodedShard]:
    """The shards in their order, while a bar tells how far they are."""
    workers, cluster = params.run.encode_workers, cluster_of(params.run)
    with Reporter("encode", rows) as reporter:
        done = 0

        def tell(more: int) -> None:
            nonlocal done
            done += more
            reporter.update(done)

        # Another process cannot move this one's bar: with several, it moves a shard at a time.
        one_process = workers == 1 and cluster is None
        if not one_process:
            # The workers load their own.
            release_encoders()
        work = partial(encode_shard, tell=tell) if one_process else encode_shard
        for shard in map_shards(work, tasks, workers, cluster):
            if not one_process:
                tell(shard.rows)
            yield shard


def _say_what_was_done(shards: list[EncodedShard]) -> None:
    rows, images = sum(shard.rows for shard in shards), sum(shard.images for shard in shards)
    captions, cut = sum(shard.captions for shard in shards), sum(shard.cut_captions for shard in shards)
    print(f"{images} of {rows} images and {captions} captions were encoded; the rest was known.")
    if cut:
        print(f"{cut} of {captions} captions are cut to the tokens that the text encoder reads.")


def _say_what_buckets_hold(
    buckets: tuple[ImageSize, ...], tasks: list[EncodeTask], shards: list[EncodedShard]
) -> None:
    held = Counter(dict.fromkeys(buckets, 0))
    for task, shard in zip(tasks, shards, strict=True):
        held[task.size] += shard.rows
    print(f"Images by bucket: {', '.join(f'{size} {rows}' for size, rows in held.items())}.")


if __name__ == "__main__":
    run_stage(encode)
