"""One bucket as a store of objects: whole writes, conditional writes, streams that are checked by SHA-256."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.registry.digest import CHUNK_BYTES, FileDigest, digest_file
from twinflow_core.registry.faults import (
    NETWORK_FAULTS,
    ObjectMissing,
    StoredObjectDamaged,
    error_code,
    explained,
    outcome_is_unknown,
)

SINGLE_PUT_BYTES = 64 << 20
PART_BYTES = 16 << 20
CONDITIONAL_ATTEMPTS = 6


@dataclass(frozen=True)
class ObjectInfo:
    """What a listing or a HEAD tells of one object: key, size in bytes, time of its last write (UTC)."""

    key: str
    size: int
    modified: datetime


class ObjectStore:
    """The objects of one bucket. Safe to share between threads.

    Every method raises the errors of `faults.explained`: a `TwinflowError` for a wrong set-up (exit 2), an
    `InfrastructureError` for a failing service (exit 3).

    Args:
        client: from `s3.make_s3_client`.
        bucket: its name.
    """

    def __init__(self, client: Any, bucket: str) -> None:
        self.client = client
        self.bucket = bucket
        self.endpoint: str = client.meta.endpoint_url

    def address(self, key: str) -> str:
        """The object's address as people write it."""
        return f"s3://{self.bucket}/{key}"

    def ensure_bucket(self, create: bool) -> None:
        """See that the bucket exists and the credentials reach it.

        Args:
            create: make a missing bucket (the embedded server's), instead of saying that it is missing.
        """
        with explained(self.address(""), self.endpoint):
            try:
                self.client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)
            except ClientError as error:
                if error_code(error) != "NoSuchBucket" or not create:
                    raise
                self._create_bucket()

    def _create_bucket(self) -> None:
        try:
            self.client.create_bucket(Bucket=self.bucket)
        except ClientError as error:
            # Another process made it between the look and this.
            if error_code(error) not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def get(self, key: str) -> bytes:
        """The whole object; for small ones. Raises `ObjectMissing` if there is none."""
        with explained(self.address(key), self.endpoint):
            body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            return body

    def chunks(self, key: str) -> Iterator[bytes]:
        """The object's bytes, piece by piece. Raises `ObjectMissing` if there is none."""
        with explained(self.address(key), self.endpoint):
            body = self.client.get_object(Bucket=self.bucket, Key=key)["Body"]
            yield from body.iter_chunks(CHUNK_BYTES)

    def head(self, key: str) -> ObjectInfo | None:
        """What the store says of an object without reading it, or None if there is none."""
        try:
            with explained(self.address(key), self.endpoint):
                answer = self.client.head_object(Bucket=self.bucket, Key=key)
        except ObjectMissing:
            return None
        return ObjectInfo(key, int(answer["ContentLength"]), answer["LastModified"])

    def clock(self) -> datetime:
        """The time of the server, which the times of its objects are told by (UTC, whole seconds)."""
        with explained(self.address(""), self.endpoint):
            answer = self.client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)
        told = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        # HTTP dates are in GMT whether or not they say so.
        return told.replace(tzinfo=UTC)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects under a prefix, in the order of their keys."""
        with explained(self.address(prefix), self.endpoint):
            for page in self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix
            ):
                for item in page.get("Contents", []):
                    yield ObjectInfo(item["Key"], int(item["Size"]), item["LastModified"])

    def delete(self, key: str) -> None:
        """Remove an object; one that is already gone is no fault."""
        with explained(self.address(key), self.endpoint):
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def put(self, key: str, body: bytes, if_absent: bool = False) -> bool:
        """Write a small object whole.

        Args:
            key: where.
            body: what. With `if_absent`, a nonce in it tells this write from an equal one of somebody else.
            if_absent: write only if nothing is there yet (If-None-Match: *).

        Returns:
            Whether the object now holds `body`; False only if another write came first.

        Raises:
            InfrastructureError: with `if_absent`, also when it cannot be found out which write won.
        """
        if if_absent:
            return self._create(key, body)
        with explained(self.address(key), self.endpoint):
            self.client.put_object(Bucket=self.bucket, Key=key, Body=body, ChecksumSHA256=_checksum(body))
        return True

    def _create(self, key: str, body: bytes) -> bool:
        for attempt in range(CONDITIONAL_ATTEMPTS):
            try:
                self.client.put_object(
                    Bucket=self.bucket, Key=key, Body=body, IfNoneMatch="*", ChecksumSHA256=_checksum(body)
                )
                return True
            except (ClientError, *NETWORK_FAULTS) as error:
                if not outcome_is_unknown(error):
                    with explained(self.address(key), self.endpoint):
                        raise
            # Refused, in conflict, or failed on the way: a retried request is refused because of its own
            # earlier success, so what the store holds now decides, not the answer.
            try:
                return self.get(key) == body
            except ObjectMissing:
                time.sleep(random.uniform(0.02, 0.1) * 2**attempt)
            except InfrastructureError as error:
                raise InfrastructureError(
                    f"Whether a conditional write was made is not known: {error.what}",
                    where=f"{self.address(key)} at {self.endpoint}",
                    fix="Once the store answers, look at `twinflow history`; doing it again is safe.",
                ) from error
        raise InfrastructureError(
            "A conditional write was neither accepted nor overtaken.",
            where=f"{self.address(key)} at {self.endpoint}",
            fix="Try again; if it stays so, run `twinflow doctor`.",
        )

    def put_file(self, key: str, path: Path, digest: FileDigest | None = None) -> FileDigest:
        """Upload a file as a stream; large ones in parts. The server checks what it received.

        Args:
            key: where.
            path: the file.
            digest: what the file must be; computed from it if not given.

        Raises:
            InfrastructureError: also if the file changed while it was read.
        """
        digest = digest or digest_file(path)
        with explained(self.address(key), self.endpoint), path.open("rb") as file:
            if digest.size <= SINGLE_PUT_BYTES:
                checksum = base64.b64encode(bytes.fromhex(digest.sha256)).decode()
                self.client.put_object(Bucket=self.bucket, Key=key, Body=file, ChecksumSHA256=checksum)
            else:
                self.client.upload_fileobj(
                    file,
                    self.bucket,
                    key,
                    ExtraArgs={"ChecksumAlgorithm": "SHA256"},
                    Config=TransferConfig(
                        multipart_threshold=SINGLE_PUT_BYTES, multipart_chunksize=PART_BYTES
                    ),
                )
        return digest

    def get_file(self, key: str, path: Path, digest: FileDigest) -> None:
        """Download an object as a stream; the file appears only when its SHA-256 is right.

        Raises:
            StoredObjectDamaged: the object has another size or content; nothing is left at `path`.
        """
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                found = self._stream(key, file)
            self._require(key, found, digest)
            os.replace(partial, path)
        except OSError as error:
            raise TwinflowError(
                f"The file cannot be written: {error.strerror}.",
                where=str(path),
                fix="Free space or permit it.",
            ) from error
        finally:
            with suppress(OSError):
                partial.unlink()

    def verify(self, key: str, digest: FileDigest) -> None:
        """Read an object back and compare. Raises `StoredObjectDamaged` or `ObjectMissing`."""
        info = self.head(key)
        if info is not None and info.size != digest.size:
            self._require(key, FileDigest("", info.size), digest)
        self._require(key, self._stream(key, None), digest)

    def _stream(self, key: str, file: IO[bytes] | None) -> FileDigest:
        state = hashlib.sha256()
        size = 0
        for chunk in self.chunks(key):
            state.update(chunk)
            size += len(chunk)
            if file is not None:
                file.write(chunk)
        return FileDigest(state.hexdigest(), size)

    def _require(self, key: str, found: FileDigest, wanted: FileDigest) -> None:
        if found == wanted:
            return
        difference = (
            f"{found.size} bytes where {wanted.size} were published"
            if found.size != wanted.size
            else f"SHA-256 {found.sha256[:12]}… where {wanted.sha256[:12]}… was published"
        )
        raise StoredObjectDamaged(
            f"A stored object is damaged: {difference}.",
            where=f"{self.address(key)} at {self.endpoint}",
            fix="Publish this version again, which heals it, or roll back to another version.",
        )


def _checksum(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()
