"""What a failing S3 call means for the user: the set-up is wrong (exit 2) or the service failed (exit 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ResponseStreamingError,
)

from twinflow_core.errors import InfrastructureError, TwinflowError

NETWORK_FAULTS = (ConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError)
MISSING_CODES = frozenset({"NoSuchKey", "NotFound", "404"})
LOST_RACE_CODES = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
UNSUPPORTED_CODES = frozenset({"NotImplemented", "501"})
DAMAGED_UPLOAD_CODES = frozenset({"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})

_CREDENTIAL_FIXES = {
    "SignatureDoesNotMatch": "Correct AWS_SECRET_ACCESS_KEY.",
    "InvalidAccessKeyId": "Correct AWS_ACCESS_KEY_ID.",
    "ExpiredToken": "Renew AWS_SESSION_TOKEN and the two keys that belong to it.",
    "InvalidToken": "Correct AWS_SESSION_TOKEN, or unset it.",
    "RequestTimeTooSkewed": "Set this machine's clock.",
}


class ObjectMissing(TwinflowError):
    """There is no object at this key."""


class AccessDenied(TwinflowError):
    """The S3 server knows the credentials, and does not permit this."""


class NotSupported(TwinflowError):
    """The S3 server does not implement what was asked of it."""


class StoredObjectDamaged(InfrastructureError):
    """The bytes in the store are not those that were put there."""


def error_code(error: ClientError) -> str:
    """The S3 error code of a refused call, e.g. "NoSuchKey"; the HTTP status where there is no code."""
    return str(error.response.get("Error", {}).get("Code", ""))


def outcome_is_unknown(error: Exception) -> bool:
    """Whether a failed write may have reached the store all the same."""
    if isinstance(error, ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        failed = status >= 500 and error_code(error) not in UNSUPPORTED_CODES
        return failed or error_code(error) in LOST_RACE_CODES
    return isinstance(error, NETWORK_FAULTS)


@contextmanager
def explained(where: str, endpoint: str) -> Iterator[None]:
    """Turn every S3 fault of the enclosed call into an error that says what to do.

    Args:
        where: the bucket and key, as "s3://bucket/key".
        endpoint: the server's address.

    Raises:
        ObjectMissing: no such key.
        AccessDenied: no permission.
        TwinflowError: wrong or missing credentials, no such bucket, an unusable address.
        InfrastructureError: the server cannot be reached, answers too late, or fails.
    """
    try:
        yield
    except ClientError as error:
        raise _explain_refusal(error, where, endpoint) from error
    except NoCredentialsError as error:
        raise TwinflowError(
            "There are no S3 credentials.",
            where=endpoint,
            fix="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        ) from error
    except NETWORK_FAULTS as error:
        raise InfrastructureError(
            "The S3 server does not answer.",
            where=f"{endpoint} ({type(error).__name__})",
            fix="Start it (`twinflow up` starts the embedded one), or correct AWS_ENDPOINT_URL_S3.",
        ) from error
    except BotoCoreError as error:
        raise TwinflowError(
            f"The S3 set-up is wrong: {error}", where=endpoint, fix="Correct the AWS_* variables."
        ) from error


def _explain_refusal(error: ClientError, where: str, endpoint: str) -> TwinflowError:
    code = error_code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    place = f"{where} at {endpoint}"
    if code in MISSING_CODES:
        return ObjectMissing("The object does not exist.", where=place, fix="Check the name, or publish it.")
    if code == "NoSuchBucket":
        return TwinflowError(
            "The bucket does not exist.",
            where=place,
            fix="Create it, or correct registry.bucket in params.yaml.",
        )
    if code in _CREDENTIAL_FIXES:
        return TwinflowError(
            f"The S3 server refuses the credentials ({code}).", where=place, fix=_CREDENTIAL_FIXES[code]
        )
    if status in (401, 403):
        return AccessDenied(
            f"The S3 server denies access ({code}).",
            where=place,
            fix="Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that this identity may do it.",
        )
    if code in UNSUPPORTED_CODES:
        return NotSupported("The S3 server lacks a feature.", where=place, fix="Use another S3 server.")
    if code in DAMAGED_UPLOAD_CODES:
        return InfrastructureError(
            "The upload arrived damaged, or the file changed while it was read.",
            where=place,
            fix="Try again.",
        )
    if status >= 500 or code in ("SlowDown", "RequestTimeout"):
        return InfrastructureError(
            f"The S3 server failed ({code}, HTTP {status}).",
            where=place,
            fix="Try again; then look at its log.",
        )
    message = error.response.get("Error", {}).get("Message", "")
    return InfrastructureError(
        f"The S3 server refused the request ({code}, HTTP {status}): {message}",
        where=place,
        fix="Run `twinflow doctor`.",
    )
