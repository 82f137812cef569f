"""Removing what nothing reaches, in two steps a day apart, so that nothing in flight can lose its bytes.

First a version's manifest is set aside under `removed/`; its blobs stay. A later collection, at least the
guard after that, deletes the blobs that no manifest names any more. Until then a version that a log or an open
decision reaches again gets its manifest back. What is published meanwhile puts back itself what it lost, see
`registry.collecting`. Logs, decisions, answers and runs are never removed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from twinflow_core.registry.collecting import Sign
from twinflow_core.registry.duties import duty
from twinflow_core.registry.manifest import read_manifest
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.store import ObjectInfo

GUARD = timedelta(hours=24)


@dataclass(frozen=True)
class Survey:
    """All that a collection decides by.

    Attributes:
        now: the server's time.
        reached: the versions that must stay.
        manifests, aside: what the store holds of each version's manifest, in place and set aside.
        blobs: what the store holds of each blob, by SHA-256.
        files: the blobs of every version, in place or set aside.
    """

    now: datetime
    reached: frozenset[str]
    manifests: dict[str, ObjectInfo]
    aside: dict[str, ObjectInfo]
    blobs: dict[str, ObjectInfo]
    files: dict[str, frozenset[str]]


@dataclass(frozen=True)
class Collection:
    """What a collection does: versions by name, blobs by SHA-256, sizes in bytes.

    Attributes:
        kept: versions that stay because something reaches them, or because they are young.
        set_aside: versions whose manifests are set aside now.
        restored: versions set aside earlier that something reaches again.
        forgotten: versions set aside so long ago that their blobs go now.
        blobs: what is deleted now.
        bytes: what these blobs hold.
        later_bytes: what the blobs of `set_aside` hold that nothing else needs; they go a guard later.
    """

    kept: list[str]
    set_aside: list[str]
    restored: list[str]
    forgotten: list[str]
    blobs: list[str]
    bytes: int
    later_bytes: int


def reached_versions(registry: Registry, now: datetime, guard: timedelta) -> frozenset[str]:
    """The versions that a log has ever named, and those that an open decision or approval may promote.

    What expired within the guard counts as open: a promotion that rests on it may be under way, or go by a
    clock that is behind.

    Raises:
        TwinflowError: a log, a decision or an answer cannot be read: nothing may be removed then.
    """
    logged = {entry.version for channel in registry.channels() for entry in registry.history(channel)}
    decisions = [each.decision for each in registry.judgements.all()]
    judged = {decision.candidate for decision in decisions if decision.is_open(now - guard)}
    approved = {answer.candidate for answer in registry.answers.all() if answer.is_open(now - guard)}
    return frozenset(version for version in logged | judged | approved if version)


def survey(registry: Registry, guard: timedelta) -> Survey:
    """Read what there is, and what reaches it. Raises as `reached_versions`, also for a damaged manifest."""
    now = registry.store.clock()
    # Blobs before manifests: a publish writes them in this order, so no manifest is seen without its blobs.
    blobs = _listed(registry, "blobs")
    manifests, aside = _listed(registry, "versions"), _listed(registry, "removed")
    files = {}
    for version, info in {**aside, **manifests}.items():
        manifest = read_manifest(version, registry.store.get(info.key), registry.store.address(info.key))
        files[version] = frozenset(file.sha256 for file in manifest.files)
    return Survey(now, reached_versions(registry, now, guard), manifests, aside, blobs, files)


def plan(found: Survey, guard: timedelta) -> Collection:
    """What may go: whatever nothing reaches and nobody wrote within the guard."""
    before = found.now - guard
    set_aside = {
        version
        for version, info in found.manifests.items()
        if version not in found.reached and info.modified < before
    }
    restored = (found.reached & found.aside.keys()) - found.manifests.keys()
    forgotten = {version for version, info in found.aside.items() if info.modified < before} - restored
    staying = (found.manifests.keys() - set_aside) | restored
    waiting = set_aside | (found.aside.keys() - forgotten)
    needed = _blobs_of(found, staying)
    needed_later = _blobs_of(found, waiting)
    doomed = {
        blob: info.size
        for blob, info in found.blobs.items()
        if blob not in needed | needed_later and info.modified < before
    }
    later = _blobs_of(found, set_aside) - needed
    return Collection(
        kept=sorted(found.manifests.keys() - set_aside),
        set_aside=sorted(set_aside),
        restored=sorted(restored),
        forgotten=sorted(forgotten),
        blobs=sorted(doomed),
        bytes=sum(doomed.values()),
        later_bytes=sum(info.size for blob, info in found.blobs.items() if blob in later),
    )


def collect(registry: Registry, dry_run: bool, guard: timedelta = GUARD) -> Collection:
    """Remove what nothing reaches and nobody wrote within the guard.

    Args:
        dry_run: only say what would be removed.
        guard: how old a manifest or a blob must be, by the server's clock. A publish writes every blob again
            that it finds older than half of this, so that what is in flight is always younger.

    Raises:
        TwinflowError: another collection is at work, or something cannot be read, so that it is not known what
            is reached; nothing is removed.
        InfrastructureError: it took too long, or was overtaken; what was removed until then is right.
    """
    if dry_run:
        return plan(survey(registry, guard), guard)
    sign = Sign(registry.store, registry.prefix)
    with duty("remove anything", "admin"), sign.raised():
        # The survey comes after the sign: whoever publishes what it does not see finds the sign.
        found = survey(registry, guard)
        return _carry_out(registry, found, plan(found, guard), guard, sign)


def _carry_out(
    registry: Registry, found: Survey, chosen: Collection, guard: timedelta, sign: Sign
) -> Collection:
    store, published = registry.store, registry.published
    for version in chosen.restored:
        _restore(registry, version)
    for version in chosen.set_aside:
        store.put(_aside_key(registry, version), store.get(published.manifest_key(version)))
        sign.require()
        store.delete(published.manifest_key(version))
    # Whoever decided or promoted while the manifests went: theirs come back.
    late = reached_versions(registry, store.clock(), guard).intersection(chosen.set_aside)
    for version in late:
        _restore(registry, version)
    for blob in chosen.blobs:
        present = store.head(published.blob_key(blob))
        if present is not None and present.modified < found.now - guard:
            sign.require()
            store.delete(present.key)
    for version in chosen.forgotten:
        sign.require()
        store.delete(_aside_key(registry, version))
    return replace(
        chosen,
        kept=sorted({*chosen.kept, *late}),
        set_aside=[version for version in chosen.set_aside if version not in late],
    )


def _blobs_of(found: Survey, versions: set[str]) -> set[str]:
    return {blob for version in versions for blob in found.files[version]}


def _restore(registry: Registry, version: str) -> None:
    key = _aside_key(registry, version)
    registry.store.put(registry.published.manifest_key(version), registry.store.get(key))
    registry.store.delete(key)


def _listed(registry: Registry, folder: str) -> dict[str, ObjectInfo]:
    """The objects of one of the registry's folders, by the version or the SHA-256 that names them."""
    prefix = f"{registry.prefix}/{folder}/"
    named = {}
    for info in registry.store.list(prefix):
        name = info.key.removeprefix(prefix).removesuffix("/manifest.json").removesuffix(".json")
        named[name.split("/")[-1]] = info
    return named


def _aside_key(registry: Registry, version: str) -> str:
    return f"{registry.prefix}/removed/{version}.json"
