"""A source in a bucket: the objects under a prefix that matter, fetched as the files of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from twinflow_core.data.source_files import SourceFiles, matching, sort_files
from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.registry.faults import explained
from twinflow_core.registry.s3 import S3Connection, connection_from_environment, make_s3_client

SCHEME = "s3://"
_CHUNK_BYTES = 2**20


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


def listing(source: str, connection: S3Connection | None = None) -> dict[str, str]:
    """What lies under a prefix: name inside it -> what changes with its content (ETag and size).

    Args:
        source: `s3://bucket/prefix`.
        connection: the server; None for the one that the environment names.

    Raises:
        TwinflowError: no server is named, or the bucket cannot be read.
    """
    place, client = place_of(source), _client(source, connection)
    start = f"{place.prefix}/" if place.prefix else ""
    found = {}
    with explained(source, client.meta.endpoint_url):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=start):
            for item in page.get("Contents", []):
                name = item["Key"][len(start) :]
                if name and not name.endswith("/"):
                    found[name] = f"{item.get('ETag', '')} {item['Size']}"
    return found


def fetch_source(source: str, pattern: str | None, folder: Path) -> SourceFiles:
    """Download the source's files into an empty folder under their own names.

    Args:
        source: `s3://bucket/prefix`, on the server that the environment names.
        pattern: as `matching`'s.
        folder: where they go.

    Raises:
        TwinflowError: as `listing`, `matching` and `sort_files`; nothing is there; a name leads out of the
            folder.
        InfrastructureError: an object came shorter than the server said.
    """
    names = sorted(listing(source))
    files = sort_files(matching(names, pattern), source)
    if not len(files):
        raise TwinflowError(
            "There are no images and no packed files under the prefix.",
            where=source,
            fix="Correct data.source in params.yaml.",
        )
    place, client = place_of(source), _client(source, None)
    for name in files.all_names():
        if name.startswith("/") or {"..", ".", ""} & set(name.split("/")) or "\0" in name:
            raise TwinflowError(
                f"An object's name leads out of the data folder: {name!r}.",
                where=source,
                fix="Rename the object.",
            )
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(client, place.bucket, f"{place.prefix}/{name}" if place.prefix else name, path)
    return files


def _download(client: Any, bucket: str, key: str, path: Path) -> None:
    address = f"{SCHEME}{bucket}/{key}"
    with explained(address, client.meta.endpoint_url), path.open("wb") as file:
        answer = client.get_object(Bucket=bucket, Key=key)
        for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
            file.write(chunk)
        if file.tell() != int(answer["ContentLength"]):
            raise InfrastructureError(
                "An object came shorter than the server said.", where=address, fix="Try again."
            )


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
