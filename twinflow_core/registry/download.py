"""A version on the local disk: downloaded once, checked by SHA-256, visible only when whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from twinflow_core.registry.digest import FileDigest, digest_file
from twinflow_core.registry.faults import ObjectMissing, StoredObjectDamaged
from twinflow_core.registry.manifest import Manifest
from twinflow_core.registry.store import ObjectStore


def download_version(
    store: ObjectStore, manifest: Manifest, version: str, blob_key: Callable[[str], str], cache: Path
) -> Path:
    """Bring a version into the cache folder, or check the copy that is there.

    Two processes that want the same version take turns; files that an interrupted download left whole are
    kept.

    Returns:
        `<cache>/<version>`, every file right.

    Raises:
        StoredObjectDamaged: an object is lost or damaged; the cache holds no such version then.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / version
    partial = cache / f".{version}.partial"
    with FileLock(cache / f".{version}.lock"):
        if is_intact(folder, manifest):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        for file in manifest.files:
            path = partial / file.path
            digest = FileDigest(file.sha256, file.size)
            if path.is_file() and digest_file(path) == digest:
                continue
            try:
                store.get_file(blob_key(file.sha256), path, digest)
            except ObjectMissing as error:
                raise StoredObjectDamaged(
                    f"A file of version {version[:12]} is lost from the store: {file.path}.",
                    where=error.where,
                    fix="Publish this version again, which heals it, or roll back to another version.",
                ) from error
        for leftover in _files_in(partial) - {file.path for file in manifest.files}:
            (partial / leftover).unlink()
        os.replace(partial, folder)
    return folder


def is_intact(folder: Path, manifest: Manifest) -> bool:
    """Whether a folder holds exactly the manifest's files, all with the right content."""
    if not folder.is_dir():
        return False
    return _files_in(folder) == {file.path for file in manifest.files} and all(
        digest_file(folder / file.path) == FileDigest(file.sha256, file.size) for file in manifest.files
    )


def _files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
