"""The gates' decisions in the bucket: written once, found again by id or by the version they are about."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.decision import may_be_about, new_decision_id, read_decision
from twinflow_core.registry.duties import duty
from twinflow_core.registry.faults import ObjectMissing, StoredObjectDamaged
from twinflow_core.registry.manifest import canonical_json
from twinflow_core.registry.names import require_name
from twinflow_core.registry.permission import Judgement, read_judgement
from twinflow_core.registry.store import ObjectStore

READERS = 8


class Judgements:
    """The decisions about the candidates of one model.

    Args:
        store: the bucket.
        model: the model's name.
        prefix: the model's folder in the bucket, without a slash at the end.
    """

    def __init__(self, store: ObjectStore, model: str, prefix: str) -> None:
        self.store = store
        self.model = model
        self.prefix = f"{prefix}/decisions"

    def record(self, document: dict[str, Any]) -> str:
        """Write a decision; it can never be changed, only followed by another.

        Args:
            document: at least the fields of `decision.Decision`; anything else is kept beside them.

        Returns:
            Its id, which sorts by time.

        Raises:
            NotThisIdentity: the store lets others alone record decisions.
            TwinflowError: a field is missing or wrong, or a number is not finite.
        """
        candidate = read_decision(document, "the decision to record").candidate
        if document.get("model", self.model) != self.model:
            raise TwinflowError(
                f"The decision is about {document['model']!r}, not {self.model!r}.",
                where="the decision to record",
                fix="Record it in the registry of its own model.",
            )
        identity = new_decision_id(candidate)
        body = canonical_json({**document, "id": identity, "model": self.model})
        with duty("record decisions of the gates", "trainer"):
            created = self.store.put(self._key(identity), body, if_absent=True)
        if not created:
            raise TwinflowError("This decision's id is taken.", where=self._key(identity), fix="Judge again.")
        return identity

    def document(self, identity: str) -> dict[str, Any]:
        """A decision as it was recorded. Raises `TwinflowError` if there is none, or it cannot be read."""
        key = self._key(identity)
        where = self.store.address(key)
        try:
            document = json.loads(self.store.get(key))
        except ObjectMissing:
            raise TwinflowError(
                f"There is no decision {identity} about {self.model}.",
                where=where,
                fix="Judge the candidate.",
            ) from None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise StoredObjectDamaged(
                "The decision is damaged.", where=where, fix="Judge the candidate again."
            )
        return document

    def ids(self) -> list[str]:
        """The ids of all decisions, oldest first."""
        folder = f"{self.prefix}/"
        return [info.key.removeprefix(folder).removesuffix(".json") for info in self.store.list(folder)]

    def get(self, identity: str) -> Judgement:
        """A decision, as far as promotion reads it. Raises as `document`."""
        return read_judgement(identity, self.document(identity))

    def all(self) -> list[Judgement]:
        """All decisions, oldest first. Raises `TwinflowError` if any cannot be read."""
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self.get, self.ids()))

    def of(self, version: str) -> list[Judgement]:
        """The decisions about a version, oldest first; reads those that may be about it alone.

        Raises `TwinflowError` if one of these cannot be read.
        """
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(self.get, [each for each in self.ids() if may_be_about(each, version)])
            return [each for each in found if each.decision.candidate == version]

    def run_that_made(self, version: str) -> str:
        """The run that the latest decision about a version names; empty if none does. Raises as `of`."""
        runs = (str(self.document(each.id).get("run") or "") for each in reversed(self.of(version)))
        return next(filter(None, runs), "")

    def about(self, version: str, channel: str, since: int) -> Judgement:
        """The decision that speaks for or against a version on a channel.

        The latest one made for this channel and what it serves, else the latest of all about the version.
        A dry run speaks only where nothing else does.

        Args:
            since: the generation since which the channel serves what it serves.

        Raises:
            TwinflowError: the gates never judged this version.
        """
        found = self.of(version)
        if not found:
            raise TwinflowError(
                f"Version {version[:12]} was never judged: it can be neither approved nor promoted.",
                where=f"the registry of {self.model}",
                fix="Run `make retrain` with gates.mode: enforce, and promote what passes.",
            )
        found = [each for each in found if each.decision.mode == "enforce"] or found
        here = [
            each for each in found if each.decision.channel == channel and each.decision.generation >= since
        ]
        return (here or found)[-1]

    def _key(self, identity: str) -> str:
        require_name("decision", identity)
        return f"{self.prefix}/{identity}.json"
