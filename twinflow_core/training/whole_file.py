"""A file that is written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from twinflow_core.full_disk import cannot_write


@contextmanager
def whole_file(target: Path, what: str, failure: type[Exception]) -> Iterator[Path]:
    """Write a file beside the target, which takes its place once the block ends without an error.

    Args:
        target: the file to make, in a folder that is made too. One that exists is replaced in one move.
        what: it is, as the beginning of a sentence.
        failure: what the writer raises besides `OSError` where it cannot write.

    Yields:
        The path to write to.

    Raises:
        InfrastructureError: it cannot be written; the earlier file stays.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, target)
    except (OSError, failure) as error:
        with suppress(OSError):
            partial.unlink()
        raise cannot_write(what, error, str(target)) from error
