"""The published versions of one model: content-addressed blobs under immutable manifests."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.collecting import Sign
from twinflow_core.registry.digest import FileDigest
from twinflow_core.registry.download import download_version
from twinflow_core.registry.duties import duty
from twinflow_core.registry.faults import ObjectMissing, StoredObjectDamaged
from twinflow_core.registry.manifest import Manifest, PackageFile, describe_package, read_manifest
from twinflow_core.registry.names import require_version
from twinflow_core.registry.store import ObjectStore

TRANSFERS = 4
# A blob that a publish finds in place is written again if it is older: half of what garbage collection spares.
REFRESH_AFTER = timedelta(hours=12)


class UnknownVersion(TwinflowError):
    """No such version was ever published."""


class Versions:
    """Publishes, reads back and downloads packages.

    Args:
        store: the bucket.
        model: the model's name.
        prefix: the model's folder in the bucket, without a slash at the end.
    """

    def __init__(self, store: ObjectStore, model: str, prefix: str) -> None:
        self.store = store
        self.model = model
        self.prefix = prefix

    def publish(self, package: Path, lineage: dict[str, Any], metrics: dict[str, Any]) -> str:
        """Upload a package folder as a version and read every byte of it back.

        The same content is the same version: publishing twice uploads nothing twice, and heals a blob that
        was damaged since.

        Returns:
            The version: SHA-256 of its manifest, in hex.

        Raises:
            NotThisIdentity: the store lets others alone publish.
            TwinflowError: the folder is missing, empty, or holds a link.
            StoredObjectDamaged: the store does not give back what was uploaded.
        """
        version, body, manifest = describe_package(package, self.model, lineage, metrics)
        with duty("publish versions", "trainer"):
            self._write(version, body, manifest, package)
        return version

    def _write(self, version: str, body: bytes, manifest: Manifest, package: Path) -> None:
        fresh_since = self.store.clock() - REFRESH_AFTER
        with ThreadPoolExecutor(TRANSFERS) as pool:
            # list: the first failure is raised here, before the manifest makes the version visible.
            list(pool.map(lambda file: self._upload(package, file, fresh_since), manifest.files))
        key = self.manifest_key(version)
        self.store.put(key, body)
        self._require_kept(package, manifest, key, body)
        read_manifest(version, self.store.get(key), self.store.address(key))

    def _require_kept(self, package: Path, manifest: Manifest, key: str, body: bytes) -> None:
        """Put back what a collection took that did not see this manifest; see `collecting.Sign`."""
        Sign(self.store, self.prefix).wait_for_its_end()
        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(lambda file: self._upload_if_gone(package, file), manifest.files))
        if self.store.head(key) is None:
            self.store.put(key, body)

    def manifest(self, version: str) -> Manifest:
        """The manifest of a version.

        Raises:
            UnknownVersion: it was never published here.
            StoredObjectDamaged: its bytes do not hash to its name.
        """
        require_version(version)
        key = self.manifest_key(version)
        try:
            return read_manifest(version, self.store.get(key), self.store.address(key))
        except ObjectMissing:
            raise UnknownVersion(
                f"Version {version[:12]} of {self.model} was never published here.",
                where=self.store.address(key),
                fix="See `twinflow history` for the versions that were.",
            ) from None

    def all(self) -> list[str]:
        """All published versions, in the order of their names."""
        folder = f"{self.prefix}/versions/"
        return [info.key.removeprefix(folder).split("/")[0] for info in self.store.list(folder)]

    def fetch(self, version: str, destination: Path) -> Path:
        """Download a version into a cache, each file checked by SHA-256.

        Args:
            version: which.
            destination: the cache folder; it gets one folder a version.

        Returns:
            `<destination>/<version>`, which appears only when it is whole and right. A copy that is there
            already is hashed again, and replaced if it is damaged.

        Raises:
            StoredObjectDamaged: an object in the store is damaged or lost; nothing is left behind.
        """
        return download_version(self.store, self.manifest(version), version, self.blob_key, destination)

    def verify(self, version: str) -> list[str]:
        """Read every byte of a version back.

        Returns:
            One sentence a problem; empty if all is well.
        """
        try:
            manifest = self.manifest(version)
        except (UnknownVersion, StoredObjectDamaged) as error:
            return [f"{error.what} ({error.where})"]
        return self.problems_of(manifest.files)

    def problems_of(self, files: Iterable[PackageFile]) -> list[str]:
        """Read the blobs of these files back: one sentence a problem."""
        with ThreadPoolExecutor(TRANSFERS) as pool:
            return [problem for problem in pool.map(self._problem_of, files) if problem]

    def require_intact(self, version: str) -> None:
        """Refuse a version that has any problem. Raises `StoredObjectDamaged`."""
        problems = self.verify(version)
        if problems:
            raise StoredObjectDamaged(
                f"Version {version[:12]} is not intact: {problems[0]}",
                where=f"{self.store.address(self.prefix)} ({len(problems)} problem(s))",
                fix="Publish it again, which heals it, or choose another version.",
            )

    def _problem_of(self, file: PackageFile) -> str | None:
        key = self.blob_key(file.sha256)
        try:
            self.store.verify(key, FileDigest(file.sha256, file.size))
        except ObjectMissing:
            return f"{file.path}: its object is lost ({self.store.address(key)})"
        except StoredObjectDamaged as error:
            return f"{file.path}: {error.what} ({self.store.address(key)})"
        return None

    def _upload(self, package: Path, file: PackageFile, fresh_since: datetime) -> None:
        """Upload a file that is not there, is damaged, or is so old that garbage collection might take it."""
        present = self.store.head(self.blob_key(file.sha256))
        if present and present.modified >= fresh_since and self._problem_of(file) is None:
            return
        self._put(package, file)

    def _upload_if_gone(self, package: Path, file: PackageFile) -> None:
        if self.store.head(self.blob_key(file.sha256)) is None:
            self._put(package, file)

    def _put(self, package: Path, file: PackageFile) -> None:
        digest = FileDigest(file.sha256, file.size)
        self.store.put_file(self.blob_key(file.sha256), package / file.path, digest)
        self.store.verify(self.blob_key(file.sha256), digest)

    def blob_key(self, sha256: str) -> str:
        """Where a file's content lies."""
        return f"{self.prefix}/blobs/sha256/{sha256[:2]}/{sha256}"

    def manifest_key(self, version: str) -> str:
        """Where a version's manifest lies."""
        return f"{self.prefix}/versions/{version}/manifest.json"
