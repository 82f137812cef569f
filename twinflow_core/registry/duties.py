"""Who may do what is up to the store's policies; here a refusal is told as the duty that an identity lacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twinflow_core.registry.faults import AccessDenied


class NotThisIdentity(AccessDenied):
    """The store's policies leave this to another identity."""


@contextmanager
def duty(what: str, role: str) -> Iterator[None]:
    """Tell whoever is refused in the enclosed work what it was about.

    Args:
        what: what the work does, e.g. "change the channel staging".
        role: who does it on the embedded server: trainer, promoter or admin.

    Raises:
        NotThisIdentity: the store denies access.
    """
    try:
        yield
    except AccessDenied as error:
        raise NotThisIdentity(
            f"This identity may not {what}: the S3 server denies access.",
            where=error.where,
            fix="Do it with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of an identity that may "
            f"(on the embedded server: {role}).",
        ) from error
