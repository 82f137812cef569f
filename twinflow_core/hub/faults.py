"""What a failing call of the hub means for the user: the set-up is wrong (exit 2) or the service failed (exit 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from httpx2 import HTTPError
from huggingface_hub import constants
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from twinflow_core.errors import InfrastructureError, TwinflowError

REFUSED = frozenset({401, 403})


@contextmanager
def explained(repository: str) -> Iterator[None]:
    """Turn every fault of the enclosed calls of the hub into an error that says what to do.

    Args:
        repository: the model's, as `owner/name`.

    Raises:
        TwinflowError: no such model, commit or file; its terms were not accepted; the token is refused; the
            hub may not be asked and its cache lacks something.
        InfrastructureError: the hub cannot be reached, answers too late, or fails.
    """
    try:
        yield
    except HFValidationError as error:
        raise TwinflowError(
            f"`{repository}` is no name of a model on the hub.",
            where=f"params.yaml: base.hub = {repository}",
            fix="Write it as owner/name.",
        ) from error
    except (HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise _explain(error, f"{constants.ENDPOINT}/{repository}") from error
    except (CachedRepoTreeNotFoundError, FileMetadataError) as error:
        raise InfrastructureError(
            "The hub does not say which files the model has.",
            where=f"{constants.ENDPOINT}/{repository}",
            fix="Check the network and HF_ENDPOINT, then run again.",
        ) from error


def _explain(error: BaseException, where: str) -> TwinflowError:
    # What the client's cache lacks is said as such; why the hub was not asked is the cause.
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return _explain(error.__cause__, where)
    if isinstance(error, OfflineModeIsEnabled):
        return TwinflowError(
            "The hub may not be asked (HF_HUB_OFFLINE), and its cache lacks files of the model.",
            where=f"{where}, {constants.HF_HUB_CACHE}",
            fix="Unset HF_HUB_OFFLINE, or fetch the model into this cache on a machine that may.",
        )
    if isinstance(error, GatedRepoError):
        return TwinflowError(
            "The model is gated: its owner gives it to those who accept its terms.",
            where=where,
            fix="Accept them on the model's page, then set HF_TOKEN to a token of that account.",
        )
    if isinstance(error, RepositoryNotFoundError):
        return TwinflowError(
            "The hub shows no such model: it does not exist, or it is private.",
            where=where,
            fix="Correct base.hub in params.yaml, or set HF_TOKEN to a token that may read it.",
        )
    if isinstance(error, RevisionNotFoundError):
        return TwinflowError(
            "The model has no such commit.", where=where, fix="Correct base.revision in params.yaml."
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return TwinflowError(
            "The model lacks a file of a diffusers pipeline.",
            where=str(error.response.url),
            fix="Name a repository in diffusers' layout: its page lists a model_index.json.",
        )
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in REFUSED:
            return TwinflowError(
                f"The hub refuses the token, or it may not read this model (HTTP {status}).",
                where=where,
                fix="Correct HF_TOKEN, or unset it.",
            )
        return InfrastructureError(f"The hub failed (HTTP {status}).", where=where, fix="Try again later.")
    return InfrastructureError(
        f"The hub does not answer ({type(error).__name__}).",
        where=where,
        fix="Check the network and HF_ENDPOINT, then run again: files that arrived are kept.",
    )
