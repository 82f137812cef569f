"""The newest version of a channel on this disk: fetched and checked when the channel moves, remembered when the
store is away."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.registry.channel import Entry
from twinflow_core.registry.download import is_intact
from twinflow_core.registry.manifest import Manifest, canonical_json, read_manifest
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import connection_from_environment, make_s3_client
from twinflow_core.registry.store import ObjectStore
from twinflow_core.runtime.cache_folder import user_cache


@dataclass(frozen=True)
class Release:
    """What a channel serves, on this disk.

    Attributes:
        version: SHA-256 of the version's manifest.
        generation: the channel's entry that says so; 0 for a plain folder, which belongs to no channel.
        previous: the version that the channel served before this one, if any.
        folder: the package, every file checked.
    """

    version: str
    generation: int
    previous: str | None
    folder: Path


class ChannelFollower:
    """Knows the newest release of one channel.

    Args:
        registry: of the model.
        channel: which.
        cache: folder on this disk, shared by any number of processes. Each version is downloaded once, and
            appears only when it is whole; what the channel last served is remembered beside it.
    """

    def __init__(self, registry: Registry, channel: str, cache: Path) -> None:
        self.registry = registry
        self.channel = channel
        self._versions = cache / "versions"
        self._manifests = cache / "manifests"
        store = registry.store
        # Two buckets may hold a model of one name: what one served must not be taken for the other's.
        origin = hashlib.sha256(f"{store.endpoint} {store.bucket}".encode()).hexdigest()[:16]
        self._memory = cache / "channels" / f"{origin}-{registry.model}-{channel}.json"

    def latest(self, known: Release | None = None) -> Release:
        """What the channel serves now, by the store.

        Args:
            known: the release in use; if the channel has not moved since, it is given back.

        Raises:
            TwinflowError: the channel serves nothing yet, or the set-up is wrong.
            InfrastructureError: the store is away, or an object in it is damaged.
        """
        state = self.registry.head(self.channel)
        if known and state.generation == known.generation:
            return known
        if state.version is None:
            raise TwinflowError(
                f"{self.channel} serves nothing yet.",
                where=f"the registry of {self.registry.model}",
                fix="Promote a version to it: `make retrain` does for staging, `twinflow promote` for others.",
            )
        previous = previous_version(self.registry.history(self.channel), state.version)
        release = Release(state.version, state.generation, previous, self.fetch(state.version))
        self._remember(release)
        return release

    def remembered(self) -> Release | None:
        """What the channel served when the store last answered, if its files are still here and right."""
        try:
            noted = json.loads(self._memory.read_text(encoding="utf-8"))
            version, generation, previous = noted["version"], noted["generation"], noted["previous"]
            path = self._manifests / f"{version}.json"
            manifest = read_manifest(version, path.read_bytes(), str(path))
        except (OSError, ValueError, KeyError, TypeError, InfrastructureError):
            return None
        folder = self._versions / version
        return Release(version, generation, previous, folder) if is_intact(folder, manifest) else None

    def fetch(self, version: str) -> Path:
        """The folder of a version, downloaded if it is not here, every file checked by SHA-256."""
        folder = self.registry.fetch(version, self._versions)
        self._keep(version, self.registry.manifest(version))
        return folder

    def _keep(self, version: str, manifest: Manifest) -> None:
        """Keep the manifest, so that the files can be checked without the store."""
        body = canonical_json(manifest.model_dump(mode="json"))
        if hashlib.sha256(body).hexdigest() == version:
            _write_whole(self._manifests / f"{version}.json", body)

    def _remember(self, release: Release) -> None:
        noted = {
            "version": release.version,
            "generation": release.generation,
            "previous": release.previous,
        }
        _write_whole(self._memory, canonical_json(noted))


def follow_channel(channel: str, model: str, bucket: str, cache: Path | None = None) -> ChannelFollower:
    """A follower of a channel on the server that the environment names.

    Args:
        channel: `production`, `staging`, ..
        model: the model's name in the registry (`registry.model`).
        bucket: where (`registry.bucket`).
        cache: see `ChannelFollower`; the user's cache folder unless told.

    Raises:
        TwinflowError: no server is named, or its variables are wrong.
    """
    connection = connection_from_environment()
    if connection is None:
        raise TwinflowError(
            "No S3 server is named.",
            where="AWS_ENDPOINT_URL_S3",
            fix="Set AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for the embedded server "
            '`eval "$(twinflow up --export)"` does.',
        )
    registry = Registry(ObjectStore(make_s3_client(connection), bucket), model)
    return ChannelFollower(registry, channel, cache or user_cache())


def previous_version(entries: Sequence[Entry], version: str) -> str | None:
    """What the channel served before `version`, by its history; None if nothing else ever was."""
    others = (entry.version for entry in reversed(entries) if entry.version not in (None, version))
    return next(others, None)


def _write_whole(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    partial.write_bytes(body)
    os.replace(partial, path)
