"""A source in a bucket: the objects under a prefix that matter, fetched as the files of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from twinflow_core.data.object_downloads import download_all
from twinflow_core.data.sorted_rows import SortedRows
from twinflow_core.data.source_files import SourceFiles, matching, sort_files
from twinflow_core.errors import TwinflowError
from twinflow_core.progress import track
from twinflow_core.registry.faults import explained
from twinflow_core.registry.s3 import S3Connection, connection_from_environment, make_s3_client

SCHEME = "s3://"
# boto3 takes 2 ms of one core an object, so more gain little: see benchmarks/results/bucket_scale.json.
_THREADS = 16


class Place(NamedTuple):
    """A bucket and a prefix in it, without slashes at its ends."""

    bucket: str
    prefix: str


def is_in_bucket(source: str) -> bool:
    """Whether `data.source` names a bucket."""
    return source.startswith(SCHEME)


def place_of(source: str) -> Place:
    """The bucket and the prefix of an address.

    Raises:
        TwinflowError: it names no bucket.
    """
    bucket, _, prefix = source.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise TwinflowError(
            "The data source names no bucket.",
            where=f"params.yaml: data.source = {source}",
            fix="Write it as s3://bucket/prefix.",
        )
    return Place(bucket, prefix.strip("/"))


def listing(source: str, connection: S3Connection | None = None) -> Iterator[tuple[str, str]]:
    """What lies under a prefix: name inside it, and what changes with its content (ETag and size).

    Args:
        source: `s3://bucket/prefix`.
        connection: the server; None for the one that the environment names.

    Returns:
        Each name once, in the order of `sorted`. The server was asked for all of them; they lie on disk.

    Raises:
        TwinflowError: no server is named, or the bucket cannot be read.
        InfrastructureError: the server fails, or the disk is full.
    """
    return _listed(source, place_of(source), _client(source, connection))


def _listed(source: str, place: Place, client: Any) -> Iterator[tuple[str, str]]:
    start = f"{place.prefix}/" if place.prefix else ""
    found = SortedRows()
    with explained(source, client.meta.endpoint_url):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=start):
            for item in page.get("Contents", []):
                name = item["Key"][len(start) :]
                if name and not name.endswith("/"):
                    found.add(name, f"{item.get('ETag', '')} {item['Size']}")
    return _last_of_each(found)


def _last_of_each(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """One row a name: a server may list an object again that was written meanwhile."""
    for _, same in groupby(rows, key=itemgetter(0)):
        *_, last = same
        yield last


def fetch_source(source: str, pattern: str | None, folder: Path) -> SourceFiles:
    """Download the source's files into an empty folder under their own names.

    Args:
        source: `s3://bucket/prefix`, on the server that the environment names.
        pattern: as `matching`'s.
        folder: where they go. After an error it may hold some of them, the last ones in part.

    Raises:
        TwinflowError: as `listing`, `matching` and `sort_files`; nothing is there; a name leads out of the
            folder.
        InfrastructureError: as `listing` and `download_all`.
    """
    place, client = place_of(source), _client(source, None)
    names = (name for name, _ in _listed(source, place, client))
    files = sort_files(matching(names, pattern), source)
    if not len(files):
        raise TwinflowError(
            "There are no images and no packed files under the prefix.",
            where=source,
            fix="Correct data.source in params.yaml.",
        )
    wanted = (
        (f"{place.prefix}/{name}" if place.prefix else name, folder / _safe(name, source))
        for name in track(files.all_names(), "raw", len(files))
    )
    download_all(client, place.bucket, wanted, _THREADS)
    return files


def _safe(name: str, source: str) -> str:
    if name.startswith("/") or {"..", ".", ""} & set(name.split("/")) or "\0" in name:
        raise TwinflowError(
            f"An object's name leads out of the data folder: {name!r}.",
            where=source,
            fix="Rename the object.",
        )
    return name


def _client(source: str, connection: S3Connection | None) -> Any:
    connection = connection or connection_from_environment()
    if connection is None:
        raise TwinflowError(
            "The data source is in a bucket, but no S3 server is named.",
            where=f"params.yaml: data.source = {source}",
            fix="Set AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; "
            "`twinflow retrain` sets them for its own stages.",
        )
    return make_s3_client(connection)
