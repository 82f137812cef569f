"""A model of the hub at one commit: what its name stands for can change, a commit cannot."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import NamedTuple

from twinflow_core.errors import TwinflowError

COMMIT = re.compile(r"[0-9a-f]{40}")


class HubModel(NamedTuple):
    """A repository, as `owner/name`, and the full hash of a commit of it."""

    repository: str
    commit: str

    def __str__(self) -> str:
        return f"{self.repository} at {self.commit[:12]}"


def pinned_model(repository: str, revision: str) -> HubModel:
    """The model that `base.hub` and `base.revision` name; asks the hub only to word a refusal.

    Raises:
        TwinflowError: the revision is a branch, a tag or a short hash. Says which commit it stands for now,
            where the hub tells.
    """
    if COMMIT.fullmatch(revision):
        return HubModel(repository, revision)
    commit = _commit_of(repository, revision)
    raise TwinflowError(
        f"`{revision}` is no full commit hash: it can come to stand for other files, and the run could not be "
        "reproduced.",
        where=f"params.yaml: base.revision = {revision}",
        fix=f"Set base.revision to {commit}, which it stands for now."
        if commit
        else "Set base.revision to the 40 digits that the model's page shows for a commit.",
    )


def _commit_of(repository: str, revision: str) -> str | None:
    # Slow to import, and needed for this message alone.
    from huggingface_hub import HfApi

    from twinflow_core.hub.faults import explained

    with suppress(TwinflowError), explained(repository):
        return HfApi().model_info(repository, revision=revision, timeout=10).sha
    return None
