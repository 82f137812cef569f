"""Files of a model from the hub, through the hub's own client and its cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import get_cached_repo_tree, hf_hub_download, snapshot_download
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars

from twinflow_core.backbones.plain_folder import INDEX
from twinflow_core.errors import InfrastructureError
from twinflow_core.hub.faults import explained
from twinflow_core.hub.files import SHARD_INDEX, pipeline_files, plain_name
from twinflow_core.hub.pinned import HubModel
from twinflow_core.progress import Reporter

CHUNK_BYTES = 1 << 22


def fetch_file(model: HubModel, name: str) -> Path:
    """One file, in the client's cache, which is asked first.

    Raises:
        TwinflowError: as `explained`.
    """
    disable_progress_bars()
    with explained(model.repository):
        return Path(hf_hub_download(model.repository, name, revision=model.commit))


def fetch_configs(model: HubModel) -> Path:
    """The index and the parts' configurations, in a folder of the client's cache.

    Raises:
        TwinflowError: as `explained`.
    """
    disable_progress_bars()
    patterns = [INDEX, "*/config.json"]
    with explained(model.repository):
        return Path(snapshot_download(model.repository, revision=model.commit, allow_patterns=patterns))


def fetch_pipeline(model: HubModel, index: Mapping[str, Any], output: Path) -> None:
    """Fetch what a pipeline needs (see `pipeline_files`) and copy it, each file checked against the hub's hash.

    Files that arrived before are taken from the client's cache; none but the one on its way is fetched again.

    Args:
        model: the model.
        index: its `model_index.json`.
        output: the folder to fill.

    Raises:
        TwinflowError: as `explained` and `pipeline_files`.
        InfrastructureError: a file is not what the hub says it is.
    """
    listing = _listing(model)
    chosen = pipeline_files(index, listing, str(model))
    total = sum(listing[name].size for name in chosen)
    arrived = 0
    with Reporter("base", len(chosen)) as reporter:
        for done, (name, stored) in enumerate(chosen.items()):
            reporter.update(done, f"{arrived / 2**30:.1f} of {total / 2**30:.1f} GiB")
            _copy(fetch_file(model, name), output / stored, listing[name])
            arrived += listing[name].size
        reporter.update(len(chosen))


def _listing(model: HubModel) -> dict[str, RepoFile]:
    """Every file of the commit by name. The client keeps it, so that it can be read where the hub is out of reach."""
    disable_progress_bars()
    with explained(model.repository):
        snapshot_download(model.repository, revision=model.commit, allow_patterns=INDEX)
        return {file.path: file for file in get_cached_repo_tree(model.repository, revision=model.commit)}


def _copy(source: Path, target: Path, told: RepoFile) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # As git names a file's content, unless it is kept outside git.
    digest = hashlib.sha256() if told.lfs else hashlib.sha1(f"blob {told.size}\0".encode())
    with source.open("rb") as read, target.open("wb") as write:
        while chunk := read.read(CHUNK_BYTES):
            digest.update(chunk)
            write.write(chunk)
    if digest.hexdigest() != (told.lfs.sha256 if told.lfs else told.blob_id):
        raise InfrastructureError(
            "A file of the model is not what the hub says it is.",
            where=str(source.resolve()),
            fix="Delete it and run again: it is then fetched anew.",
        )
    if target.name != source.name and SHARD_INDEX.fullmatch(source.name):
        _name_shards_plainly(target)


def _name_shards_plainly(path: Path) -> None:
    index = json.loads(path.read_text(encoding="utf-8"))
    index["weight_map"] = {weight: plain_name(file) for weight, file in index["weight_map"].items()}
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
