"""What a run depends on, as hashes: the cheap check that says *Nothing to do* before anything heavy."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from twinflow_core.data.s3_source import is_in_bucket, listing
from twinflow_core.errors import TwinflowError
from twinflow_core.home import state_home
from twinflow_core.hub.pinned import pinned_model
from twinflow_core.params import Params
from twinflow_core.registry.s3 import S3Connection

CODE = ("twinflow_core", "tasks", "flows", "dvc.yaml", "requirements.lock")
# A file changed within its clock's tick of being hashed could change again unseen.
SETTLED_SECONDS = 2.0
# Sections that say how a run treats its stages, not what it makes.
WITHOUT_EFFECT = frozenset({"run"})


def run_inputs(root: Path, params: Params, s3: S3Connection | None = None) -> dict[str, str]:
    """The hash of every part of a run's inputs.

    Args:
        root: the repository.
        params: its parameters.
        s3: the server that holds a source in a bucket; None for the one that the environment names.

    Returns:
        `params.<section>` for each section with an effect, `code`, `data` and `base`, each a SHA-256.

    Raises:
        TwinflowError: the data source or the base folder does not exist, or a base of the hub is not pinned.
    """
    document = params.model_dump(mode="json")
    hashes = {
        f"params.{section}": _sha256(json.dumps(value, sort_keys=True).encode())
        for section, value in document.items()
        if section not in WITHOUT_EFFECT
    }
    folders = {"code": [root / name for name in CODE]}
    if is_in_bucket(params.data.source):
        # What the server says of the objects; DVC reads their content.
        hashes["data"] = _objects_hash(listing(params.data.source, s3))
    else:
        folders["data"] = [_source(root, params)]
    if params.base.hub is None:
        folders["base"] = [_base(root, params)]
    elif params.base.revision is not None:
        # Its files never change: the pin, which is in `params.base`, stands for them.
        pinned_model(params.base.hub, params.base.revision)
    with HashCache(state_home(root) / "cache" / "hashes.json") as cache:
        for name, places in folders.items():
            hashes[name] = _listing_hash(root, places, cache, code=name == "code")
    return hashes


def what_changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """The names of the parts that differ, sorted."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


class HashCache:
    """SHA-256 of files, read again only if size or time of change differ. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[int | str]] = {}
        self._seen: dict[str, list[int | str]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path.with_suffix(".lock"))

    def __enter__(self) -> HashCache:
        self._lock.acquire()
        try:
            self._known = json.loads(self._path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            self._known = {}
        return self

    def __exit__(self, *_: object) -> None:
        try:
            temporary = self._path.with_suffix(".new")
            temporary.write_text(json.dumps(self._seen))
            temporary.replace(self._path)
        finally:
            self._lock.release()

    def sha256(self, path: Path) -> str:
        """The file's SHA-256."""
        state = path.stat()
        entry = self._known.get(str(path))
        if entry is not None and entry[:2] == [state.st_size, state.st_mtime_ns]:
            self._seen[str(path)] = entry
            return str(entry[2])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if time.time() - state.st_mtime > SETTLED_SECONDS:
            self._seen[str(path)] = [state.st_size, state.st_mtime_ns, digest]
        return digest


def _objects_hash(objects: Iterable[tuple[str, str]]) -> str:
    """The hash of one JSON object with a sorted key a row, of which no more than a row is in memory.

    Args:
        objects: sorted by name, each name once.
    """
    digest, comma = hashlib.sha256(b"{"), ""
    for name, state in objects:
        digest.update(f"{comma}{json.dumps(name)}: {json.dumps(state)}".encode())
        comma = ", "
    digest.update(b"}")
    return digest.hexdigest()


def _listing_hash(root: Path, places: Iterable[Path], cache: HashCache, *, code: bool) -> str:
    """One hash of all files of some places: their names below the place and their contents."""
    lines = []
    for place in places:
        for path in _files(place):
            if code and path.suffix not in {".py", ".yaml", ".lock", ".j2", ".html", ".css", ".json"}:
                continue
            lines.append(f"{place.name}/{path.relative_to(place).as_posix()}\0{cache.sha256(path)}")
    return _sha256("\n".join(sorted(lines)).encode())


def _files(place: Path) -> Iterable[Path]:
    if place.is_file():
        yield place
        return
    for folder, folders, names in os.walk(place, followlinks=True):
        folders[:] = [name for name in folders if name not in {"__pycache__", ".git"}]
        yield from (Path(folder) / name for name in names if (Path(folder) / name).is_file())


def _source(root: Path, params: Params) -> Path:
    source = root / params.data.source
    if not source.exists():
        raise TwinflowError(
            "The folder of images does not exist.",
            where=f"params.yaml: data.source = {params.data.source}",
            fix=f"Create {source}, or point data.source at your folder of images.",
        )
    return source


def _base(root: Path, params: Params) -> Path:
    folder = root / params.base.folder
    if not (folder / "model_index.json").is_file():
        raise TwinflowError(
            "The base model's folder does not exist or holds no model_index.json.",
            where=f"params.yaml: base.folder = {params.base.folder}",
            fix="Point base.folder at a diffusers pipeline folder.",
        )
    return folder


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
