"""Which files of a repository a pipeline needs: settings, tokenizers, and of each network one set of weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from twinflow_core.backbones.plain_folder import INDEX, PICKLES
from twinflow_core.errors import TwinflowError

# The model card and the licence, which the card of a published model quotes.
ABOUT = ("README.md", "LICENSE*", "LICENCE*")
SETTINGS = frozenset({".json", ".txt", ".model", ".jinja"})
WEIGHTS = re.compile(
    r"(?P<stem>model|diffusion_pytorch_model)(\.(?P<variant>\w+))?(?P<shard>-\d+-of-\d+)?\.safetensors"
)
SHARD_INDEX = re.compile(
    r"(?P<stem>model|diffusion_pytorch_model)\.safetensors\.index(\.(?P<variant>\w+))?\.json"
)
# Ways to round the same weights, from the best.
VARIANTS = (None, "fp32", "bf16", "fp16")


def pipeline_files(index: Mapping[str, Any], names: Iterable[str], where: str) -> dict[str, str]:
    """Choose from the files of a repository.

    Args:
        index: its `model_index.json`.
        names: of all its files, with slashes.
        where: what the repository is called in a message.

    Returns:
        Name in the repository -> name in the pipeline's folder, sorted. They differ for rounded weights, which
        are fetched where there are no others and kept under the plain names.

    Raises:
        TwinflowError: a network's weights are pickled alone, or only in a rounding that is not known.
    """
    parts = [name for name, part in index.items() if name.isidentifier() and _is_part(part)]
    folders: dict[str, list[str]] = {part: [] for part in parts}
    chosen = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder in folders:
            folders[folder].append(file)
        elif name == INDEX or any(fnmatchcase(name, pattern) for pattern in ABOUT):
            chosen[name] = name
    for part, files in folders.items():
        kept = _settings(files) | _weights(files, f"{where}: {part}")
        chosen |= {f"{part}/{file}": f"{part}/{stored}" for file, stored in kept.items()}
    return dict(sorted(chosen.items()))


def plain_name(file: str) -> str:
    """A weight file's name without the name of its rounding: `model.fp16.safetensors` is `model.safetensors`."""
    if found := WEIGHTS.fullmatch(file):
        return f"{found['stem']}{found['shard'] or ''}.safetensors"
    if found := SHARD_INDEX.fullmatch(file):
        return f"{found['stem']}.safetensors.index.json"
    return file


def _is_part(entry: object) -> bool:
    return isinstance(entry, list) and bool(entry) and entry[0] is not None


def _settings(files: Iterable[str]) -> dict[str, str]:
    return {file: file for file in files if PurePosixPath(file).suffix in SETTINGS and ".index." not in file}


def _weights(files: list[str], where: str) -> dict[str, str]:
    """The first variant that is there, in one file if there is one, else its shards and their index."""
    found = [match for file in files if (match := WEIGHTS.fullmatch(file))]
    for variant in VARIANTS:
        of_it = [match for match in found if match["variant"] == variant]
        whole = [match for match in of_it if match["shard"] is None]
        if whole:
            return {match[0]: plain_name(match[0]) for match in whole}
        if of_it:
            indexes = [match for file in files if (match := SHARD_INDEX.fullmatch(file))]
            of_it += [match for match in indexes if match["variant"] == variant]
            return {match[0]: plain_name(match[0]) for match in of_it}
    rounded = sorted({str(match["variant"]) for match in found})
    if rounded:
        raise TwinflowError(
            f"The model's weights are there as {', '.join(rounded)} alone.",
            where=where,
            fix="Use a commit or a repository that has them in full, or in bf16 or fp16.",
        )
    if any(PurePosixPath(file).suffix in PICKLES for file in files):
        raise TwinflowError(
            "The model's weights are pickled: loading them could run any code, so they are not fetched.",
            where=where,
            fix="Use a commit or a repository that has them as safetensors.",
        )
    return {}
