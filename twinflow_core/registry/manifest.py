"""What a version is: its files by SHA-256, its lineage, its metrics. The hash of that names the version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.digest import digest_file
from twinflow_core.registry.faults import StoredObjectDamaged

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Record(BaseModel):
    """An immutable document of the registry: no unknown key, no value changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PackageFile(Record):
    """One file of a package: relative POSIX path inside its folder, SHA-256, size in bytes."""

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        unsafe = (
            path.startswith("/") or ".." in parts or "\\" in path or ":" in path or not path.isprintable()
        )
        if unsafe or str(PurePosixPath(path)) != path:
            raise ValueError(f"{path!r} is not a plain relative path")
        return path


class Manifest(Record):
    """Everything that a version is. Holds no time and no host, so that equal content is an equal version.

    `lineage` says where it came from (run, git commit, dvc.lock, base, data), `metrics` how it measured.
    """

    model: str
    files: Annotated[tuple[PackageFile, ...], Field(min_length=1)]
    lineage: dict[str, Any]
    metrics: dict[str, Any]

    @field_validator("files")
    @classmethod
    def _sorted_once(cls, files: tuple[PackageFile, ...]) -> tuple[PackageFile, ...]:
        paths = [file.path for file in files]
        if paths != sorted(set(paths)):
            raise ValueError("files must be sorted by path, each once")
        return files


def canonical_json(document: Any) -> bytes:
    """The one way in which a document is written: sorted keys, no spaces, UTF-8, a newline at the end.

    Raises:
        TwinflowError: a number is not finite, or a value is no JSON.
    """
    try:
        text = json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return text.encode() + b"\n"
    except (ValueError, TypeError) as error:
        raise TwinflowError(
            f"A record cannot hold this value: {error}.",
            where="the registry",
            fix="Records hold JSON with finite numbers; write a missing figure as null.",
        ) from error


def describe_package(
    package: Path, model: str, lineage: dict[str, Any], metrics: dict[str, Any]
) -> tuple[str, bytes, Manifest]:
    """Hash every file of a package folder.

    Returns:
        (version, the manifest's bytes, the manifest); version is the SHA-256 of the bytes.

    Raises:
        TwinflowError: the folder is missing or empty, holds a link, or has a file name no other system takes.
    """
    if not package.is_dir():
        raise TwinflowError(
            "There is no package to publish.", where=str(package), fix="Run the export stage first."
        )
    files = []
    for path in sorted(package.rglob("*"), key=lambda path: path.relative_to(package).as_posix()):
        if path.is_symlink():
            raise TwinflowError(
                "A package holds no links.", where=str(path), fix="Put the file itself in its place."
            )
        if path.is_file():
            digest = digest_file(path)
            files.append(
                {"path": path.relative_to(package).as_posix(), "sha256": digest.sha256, "size": digest.size}
            )
    document = {"model": model, "files": files, "lineage": lineage, "metrics": metrics}
    body = canonical_json(document)
    try:
        manifest = Manifest.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors()[0]
        raise TwinflowError(
            f"The package cannot be published: {fault['msg']}.",
            where=str(package),
            fix="Give it at least one file, all with plain names.",
        ) from None
    return hashlib.sha256(body).hexdigest(), body, manifest


def read_manifest(version: str, body: bytes, where: str) -> Manifest:
    """The manifest of a version from its stored bytes.

    Raises:
        StoredObjectDamaged: the bytes do not hash to the version, or are no manifest.
    """
    try:
        if hashlib.sha256(body).hexdigest() == version:
            return Manifest.model_validate_json(body)
    except ValidationError:
        pass
    raise StoredObjectDamaged(
        "The manifest is damaged.", where=where, fix="Publish this version again, or roll back to another."
    )
