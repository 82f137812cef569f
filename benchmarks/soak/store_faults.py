"""Publishing and promoting while a proxy before the real store fails at random: refused or completed, never both."""

from __future__ import annotations

import random
import uuid
from functools import partial
from pathlib import Path

from benchmarks.soak.ledger import Cell, Ledger
from benchmarks.soak.registry_invariants import CHANNEL, decide, registry_at, require_sound, small_package
from tests.fault_proxy import (
    Fault,
    FaultProxy,
    Request,
    Response,
    die_in_upload,
    fail_after_success,
    flip_a_byte,
    hang_up,
    hang_up_after_success,
    healthy,
    refuse,
    slow,
    truncate,
)
from twinflow_core.errors import TwinflowError
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import S3Connection

STORMS = 200
ATTEMPTS = 60
FAULTS: dict[str, Fault] = {
    "500": refuse(500, "InternalError"),
    "503": refuse(503, "SlowDown"),
    "409": refuse(409, "ConditionalRequestConflict"),
    "500 after success": fail_after_success(500, "InternalError"),
    "503 after success": fail_after_success(503, "SlowDown"),
    "412 after success": fail_after_success(412, "PreconditionFailed"),
    "no answer": hang_up,
    "no answer after success": hang_up_after_success,
    "dies in an upload": die_in_upload,
    "slow": slow(0.05),
    "a byte changed": flip_a_byte,
    "truncated": truncate,
}


class Storm:
    """A fault of one kind on a share of all requests."""

    def __init__(self, fault: Fault, share: float, seed: int) -> None:
        self.fault = fault
        self.share = share
        self.draws = random.Random(seed)
        self.hits = 0

    def __call__(self, request: Request) -> Response:
        if self.draws.random() >= self.share:
            return request.forward()
        self.hits += 1
        return self.fault(request)


def one_storm(connection: S3Connection, bucket: str, work: Path, kind: str, seed: int) -> Cell:
    """Publish and promote one version through a storm, again and again until it is done.

    Raises:
        AssertionError: a promotion was refused and carried out, or the log is not sound, or a message is poor.
    """
    model = f"storm-{uuid.uuid4().hex[:12]}"
    direct = registry_at(connection, bucket, model)
    package = small_package(work / model, random.Random(seed).randbytes(200_000))
    refused = 0
    with FaultProxy(connection.endpoint) as proxy:
        faulty = registry_at(connection, bucket, model, proxy.endpoint)
        storm = Storm(FAULTS[kind], share=0.3, seed=seed)
        proxy.fault = storm
        for _ in range(ATTEMPTS):
            refusal = _try_to_promote(faulty, direct, package)
            if refusal is None:
                break
            refused += 1
            assert refusal.where, f"no place in: {refusal}"
            assert refusal.fix, f"no advice in: {refusal}"
            if direct.head(CHANNEL).generation:
                # Told as refused, it was not carried out; only an unknown outcome may be either.
                assert "not known" in refusal.what, f"refused and done: {refusal}"
                break
        proxy.fault = healthy
        if direct.head(CHANNEL).generation == 0:
            _publish_and_promote(faulty, package)
    entries = require_sound(direct)
    assert len(entries) == 1, f"{len(entries)} entries for one promotion"
    return {"faults": storm.hits, "refused": refused}


def _try_to_promote(faulty: Registry, direct: Registry, package: Path) -> TwinflowError | None:
    """The refusal, or None if it was promoted, which the log must show."""
    try:
        entry = _publish_and_promote(faulty, package)
    except TwinflowError as refusal:
        return refusal
    assert direct.history(CHANNEL)[-1] == entry, "completed, and not in the log"
    return None


def _publish_and_promote(registry: Registry, package: Path) -> object:
    version = registry.publish(package, {}, {})
    generation = registry.head(CHANNEL).generation
    decision = decide(registry, version, generation)
    return registry.promote(CHANNEL, version, decision, generation, "somebody", "because")


def soak_store(connection: S3Connection, bucket: str, work: Path, storms: int) -> Ledger:
    """Run the storms that the results do not hold yet, the kinds in turn."""
    ledger = Ledger("store")
    for number in range(storms):
        kind = list(FAULTS)[number % len(FAULTS)]
        ledger.run(
            f"{kind} {number:03d}",
            partial(one_storm, connection, bucket, work / "storms", kind, number),
        )
    return ledger
