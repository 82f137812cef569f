"""Objects of a bucket fetched as files by a few threads: few of them wait, and the first error ends all."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.registry.faults import explained

_CHUNK_BYTES = 2**20
# Objects on their way or waiting, for each thread.
_AHEAD = 2
# Too long in one of its parts; or below an object, or in place of a folder, of the same prefix.
_NO_NAME_OF_A_FILE = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


def download_all(client: Any, bucket: str, wanted: Iterable[tuple[str, Path]], threads: int) -> None:
    """Download objects into files; the folders of these are made.

    After an error or an interrupt no thread writes any more, and the files are for the caller to remove: one of
    them may hold half an object.

    Args:
        client: from `make_s3_client`.
        bucket: its name.
        wanted: the key and the file of each object. Taken by the calling thread, a few ahead.
        threads: how many objects are on their way at a time, each with about a MiB of memory.

    Raises:
        TwinflowError: as `explained`, of the object that failed first; a name that no file can have; also whatever
            `wanted` raises.
        InfrastructureError: an object came shorter than the server said.
        OSError: a file cannot be written.
    """
    ended = Event()
    running: set[Future[None]] = set()
    with ThreadPoolExecutor(threads, "twinflow-download") as pool:
        try:
            for key, path in wanted:
                if len(running) >= _AHEAD * threads:
                    running = _without_finished(running)
                running.add(pool.submit(_download, client, bucket, key, path, ended))
            while running:
                running = _without_finished(running)
        finally:
            ended.set()
            for future in running:
                future.cancel()


def _without_finished(running: set[Future[None]]) -> set[Future[None]]:
    """Wait for one to finish, or fail."""
    finished, rest = wait(running, return_when=FIRST_COMPLETED)
    for future in finished:
        future.result()
    return rest


def _new_file(path: Path, address: str) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        if error.errno not in _NO_NAME_OF_A_FILE:
            raise
        raise TwinflowError(
            f"An object's name cannot be the name of a file: {error.strerror}.",
            where=address,
            fix="Rename the object, or the one whose name is the beginning of its own.",
        ) from None


def _download(client: Any, bucket: str, key: str, path: Path, ended: Event) -> None:
    address = f"s3://{bucket}/{key}"
    with explained(address, client.meta.endpoint_url), _new_file(path, address) as file:
        answer = client.get_object(Bucket=bucket, Key=key)
        for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
            if ended.is_set():
                return
            file.write(chunk)
        if file.tell() != int(answer["ContentLength"]):
            raise InfrastructureError(
                "An object came shorter than the server said.", where=address, fix="Try again."
            )
