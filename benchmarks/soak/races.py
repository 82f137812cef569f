"""32 promoters at once against the real store, round after round: one wins each generation, nobody is lost."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.soak.ledger import Cell, Ledger
from benchmarks.soak.registry_invariants import CHANNEL, decide, registry_at, require_sound, small_package
from twinflow_core.registry.channel import Entry, StaleDecision
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import S3Connection

PROMOTERS = 32
VERSIONS = 4
ROUNDS = 200


class Race:
    """32 promoters, each with a client of its own, and versions for them to fight over."""

    def __init__(self, connection: S3Connection, bucket: str, work: Path) -> None:
        model = f"race-{uuid.uuid4().hex[:12]}"
        self.registries = [registry_at(connection, bucket, model) for _ in range(PROMOTERS)]
        self.versions = [
            self.registries[0].publish(small_package(work / str(number), f"{number}".encode()), {}, {})
            for number in range(VERSIONS)
        ]
        self.pool = ThreadPoolExecutor(PROMOTERS)

    def round(self) -> Cell:
        """All promote against one generation at once; every second loser judges again and tries once more.

        Raises:
            AssertionError: not exactly one won each generation, or the log is not sound.
        """
        registry = self.registries[0]
        before = registry.head(CHANNEL).generation
        first = self._all_at_once(list(range(PROMOTERS)), before)
        winners = [racer for racer, entry in first.items() if entry]
        assert len(winners) == 1, f"{len(winners)} of {PROMOTERS} won generation {before + 1}"
        again = [racer for racer in first if racer not in winners and racer % 2]
        second = self._all_at_once(again, before + 1)
        seconds = [racer for racer, entry in second.items() if entry]
        assert len(seconds) == 1, f"{len(seconds)} of {len(again)} won generation {before + 2}"
        entries = registry.history(CHANNEL)
        assert len(entries) == before + 2, f"{len(entries)} entries after generation {before + 2}"
        actors = [entry.actor for entry in entries[-2:]]
        assert actors == [f"racer {winners[0]}", f"racer {seconds[0]}"], f"{actors} is not who was told"
        return {"promotions": 2, "reported": len(first) - 1 - len(again), "judged_again": len(again)}

    def _all_at_once(self, racers: list[int], generation: int) -> dict[int, Entry | None]:
        barrier = threading.Barrier(len(racers))

        def race(racer: int) -> Entry | None:
            registry: Registry = self.registries[racer]
            version = self.versions[racer % VERSIONS]
            decision = decide(registry, version, generation)
            barrier.wait()
            try:
                return registry.promote(CHANNEL, version, decision, generation, f"racer {racer}", "because")
            except StaleDecision:
                return None

        return dict(zip(racers, self.pool.map(race, racers), strict=True))

    def end(self) -> None:
        """Check the whole log, and let the threads go."""
        require_sound(self.registries[0])
        self.pool.shutdown()


def soak_races(connection: S3Connection, bucket: str, work: Path, rounds: int) -> Ledger:
    """Run the rounds that the results do not hold yet."""
    ledger = Ledger("races")
    race = Race(connection, bucket, work / "races")
    for number in range(rounds):
        ledger.run(f"round {number:03d}", race.round)
    race.end()
    return ledger
