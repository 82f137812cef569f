"""Whether something failed because no more could be written: the disk is full, or a limit on files is met."""

from __future__ import annotations

import errno
import re

from twinflow_core.errors import InfrastructureError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Libraries in C++ and Rust raise errors of their own, in which only the words tell.
WORDS = re.compile(
    r"No space left on device|File too large|Disk quota exceeded|os error (27|28|122)\b"
    r"|PytorchStreamWriter failed|file write failed"
)


def disk_is_full(error: BaseException) -> bool:
    """Whether an exception, or one that it came from, says so."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if getattr(link, "errno", None) in FULL or WORDS.search(str(link)):
            return True
        link = link.__cause__ or link.__context__
    return False


def cannot_write(what: str, error: BaseException | str, where: str) -> InfrastructureError:
    """What a user is told of it.

    Args:
        what: the thing that cannot be written, as the beginning of a sentence.
        error: how the system put it.
        where: the file or folder.
    """
    put = " ".join(str(error).split())[:200]
    return InfrastructureError(
        f"{what} cannot be written: {put or type(error).__name__}.",
        where=where,
        fix="Free space on this disk and run again: what was finished is kept.",
    )
