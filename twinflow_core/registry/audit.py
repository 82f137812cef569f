"""Reading everything back: every blob against its manifest, every log without a gap, every record it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from twinflow_core.errors import TwinflowError
from twinflow_core.registry.channel import SERVING_ACTIONS, Entry
from twinflow_core.registry.manifest import PackageFile
from twinflow_core.registry.registry import Registry


@dataclass
class Audit:
    """What was read back (distinct blobs, their bytes) and what is wrong: one sentence a problem."""

    versions: int = 0
    files: int = 0
    bytes: int = 0
    channels: int = 0
    entries: int = 0
    decisions: int = 0
    answers: int = 0
    problems: list[str] = field(default_factory=list)


def audit_version(registry: Registry, version: str) -> Audit:
    """Read one version back."""
    audit = Audit()
    _audit_versions(registry, [version], audit)
    return audit


def audit_registry(registry: Registry) -> Audit:
    """Read all of a model's registry back; a blob that several versions share is read once."""
    audit = Audit()
    _audit_versions(registry, registry.versions(), audit)
    _audit_records(registry, audit)
    for channel in registry.channels():
        audit.channels += 1
        audit.problems += _problems_of_log(registry, channel, audit)
    return audit


def _audit_versions(registry: Registry, versions: list[str], audit: Audit) -> None:
    files: dict[str, PackageFile] = {}
    for version in versions:
        audit.versions += 1
        with _noted(audit):
            files.update({file.sha256: file for file in registry.manifest(version).files})
    audit.files += len(files)
    audit.bytes += sum(file.size for file in files.values())
    audit.problems += registry.published.problems_of(files.values())


def _audit_records(registry: Registry, audit: Audit) -> None:
    for identity in registry.decisions():
        audit.decisions += 1
        with _noted(audit):
            registry.judgements.get(identity)
    for version, channel in registry.answers.subjects():
        with _noted(audit):
            audit.answers += len(registry.answers.about(version, channel))


@contextmanager
def _noted(audit: Audit) -> Iterator[None]:
    """Take an error of the enclosed reading for a problem found."""
    try:
        yield
    except TwinflowError as error:
        audit.problems.append(_sentence(error))


def _problems_of_log(registry: Registry, channel: str, audit: Audit) -> list[str]:
    try:
        entries = registry.history(channel)
    except TwinflowError as error:
        return [_sentence(error)]
    audit.entries += len(entries)
    problems = []
    for before, entry in zip([None, *entries], entries, strict=False):
        told = f"{channel}, generation {entry.generation}"
        problems += [f"{told}: {what}" for what in _breaks(before, entry)]
        problems += [f"{told}: {what}" for what in _missing(registry, channel, entry)]
    return problems


def _breaks(before: Entry | None, entry: Entry) -> list[str]:
    """Where an entry does not follow from the one before."""
    breaks = []
    if entry.previous != (before.version if before else None):
        breaks.append("it does not follow from the entry before")
    if entry.action not in SERVING_ACTIONS and entry.version != entry.previous:
        breaks.append(f"a {entry.action} changes what serves")
    if entry.action == "promote" and before is not None and before.held:
        breaks.append("it promotes while the channel is held")
    return breaks


def _missing(registry: Registry, channel: str, entry: Entry) -> list[str]:
    """What an entry names and the registry does not hold."""
    missing = []
    if entry.action in SERVING_ACTIONS and entry.version is not None:
        try:
            registry.manifest(entry.version)
        except TwinflowError as error:
            missing.append(_sentence(error))
    if entry.decision is None:
        return missing
    try:
        decision = registry.judgements.get(entry.decision).decision
        if (decision.candidate, decision.mode) != (entry.version, "enforce") or decision.outcome == "reject":
            missing.append(f"decision {entry.decision} does not allow it")
        if entry.approval is not None and entry.version is not None:
            answers = registry.answers.about(entry.version, channel)
            if len(answers) < entry.approval or answers[entry.approval - 1].answer != "approve":
                missing.append(f"there is no approval {entry.approval} of {entry.version[:12]}")
    except TwinflowError as error:
        missing.append(_sentence(error))
    return missing


def _sentence(error: TwinflowError) -> str:
    return f"{error.what} ({error.where})"
