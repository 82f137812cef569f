"""Full disks and moved repositories: a real file system filled to the brim, a clone that changes its place."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from benchmarks.soak.ledger import Cell, Ledger
from benchmarks.soak.soaked_clone import SoakedClone
from tests.pipeline_clone import REPOSITORY, TWINFLOW, twinflow
from tests.tiny_pipeline import build_tiny_pipeline

FILLINGS = 5
DISK_BYTES = 64 << 20
PAGE_BYTES = 4096
STAGES = ("raw", "prepare", "base", "encode", "reference", "finetune", "evaluate", "export")
# What a stage goes on from, beside its output.
KEPT_OUTSIDE = {"encode": ("state/cache",), "finetune": ("state/training",)}
OUTPUTS = ("data", "models", "eval", "export", "state/training")


class SmallDisk:
    """A folder in which the stages run, on a file system of its own where that may be mounted."""

    def __init__(self, folder: Path, mounted: bool) -> None:
        self.folder = folder
        self.mounted = mounted
        self.needs: dict[str, int] = {}
        self._filler = folder / "filler"

    def run(self, stage: str, room: int | None) -> subprocess.CompletedProcess[str]:
        """Run a stage with so many bytes of room, or with all there is."""
        if self.mounted and room is not None:
            self._fill(room)

        def limit() -> None:
            if room is not None and not self.mounted:
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

        try:
            return subprocess.run(
                [sys.executable, "-m", f"twinflow_core.stages.{stage}"],
                cwd=self.folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(REPOSITORY),
                    "TWINFLOW_HOME": str(self.folder / "state"),
                },
                capture_output=True,
                text=True,
                preexec_fn=limit,
                timeout=600,
                check=False,
            )
        finally:
            self._filler.unlink(missing_ok=True)

    def content(self) -> dict[str, str]:
        """The hash of every file that stages made, half-made ones too."""
        files = [path for top in OUTPUTS for path in (self.folder / top).rglob("*") if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}

    def _fill(self, room: int) -> None:
        free = shutil.disk_usage(self.folder).free
        with self._filler.open("wb") as file:
            for _ in range(max(0, free - room) // PAGE_BYTES):
                file.write(b"\0" * PAGE_BYTES)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """A disk of 64 MB if this user may mount one, else a folder under the system's limit on a file's size."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "twinflow-soak", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text(encoding="utf-8"))
        document["data"]["source"] = str(REPOSITORY / "tests/tiny_shapes")
        (folder / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        build_tiny_pipeline(folder / "tiny_base")
        yield SmallDisk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def one_filling(disk: SmallDisk, stage: str, seed: int) -> Cell:
    """A stage with too little room, by chance how little; then again with enough.

    Raises:
        AssertionError: it ended otherwise than with one message, left something, or could not be done again.
    """
    draws = random.Random(f"{stage} {seed}")
    place = STAGES.index(stage)
    for earlier in STAGES[:place]:
        _make_output(disk, earlier)
    for later in STAGES[place:]:
        _remove_output(disk.folder, later)
    before = disk.content()
    room = int(draws.random() * 0.8 * _need(disk, stage))
    done = disk.run(stage, room)
    assert done.returncode == 3, f"exit {done.returncode} with {room} bytes: {done.stderr[-1200:]}"
    assert "Traceback" not in done.stderr, done.stderr[-1200:]
    assert "cannot be written" in done.stderr, done.stderr[-600:]
    left = {path for path in disk.content() if path not in before and "/state/training/" not in path}
    assert not left, f"left behind: {left}"
    assert not list(disk.folder.rglob("*.partial")), "a half-made file is left"
    again = disk.run(stage, None)
    assert again.returncode == 0, again.stderr[-1200:]
    return {"room": room, "by": "a full file system" if disk.mounted else "a limit on files"}


def _need(disk: SmallDisk, stage: str) -> int:
    """Bytes that a stage's output takes: all of it on a file system, its largest file under a limit."""
    if stage not in disk.needs:
        before = set(disk.content())
        done = disk.run(stage, None)
        assert done.returncode == 0, done.stderr[-1200:]
        sizes = [Path(path).stat().st_size for path in disk.content() if path not in before]
        pages = sum(-(-size // PAGE_BYTES) for size in sizes) * PAGE_BYTES
        disk.needs[stage] = pages if disk.mounted else max(sizes)
        _remove_output(disk.folder, stage)
    return disk.needs[stage]


def _make_output(disk: SmallDisk, stage: str) -> None:
    """Where an earlier soak was stopped, the outputs of the stages that it had done are missing."""
    if not all((disk.folder / name).exists() for name in _outputs(stage)):
        done = disk.run(stage, None)
        assert done.returncode == 0, done.stderr[-1200:]


def _remove_output(folder: Path, stage: str) -> None:
    for name in _outputs(stage):
        shutil.rmtree(folder / name, ignore_errors=True)
    for kept in KEPT_OUTSIDE.get(stage, ()):
        shutil.rmtree(folder / kept, ignore_errors=True)


def _outputs(stage: str) -> list[str]:
    made = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["outs"]
    return [out if isinstance(out, str) else next(iter(out)) for out in made]


def moved_clone(work: Path) -> Cell:
    """A clone with running services is moved: what it knows goes with it, and the next run finishes.

    Raises:
        AssertionError: something still points at the old place.
    """
    with SoakedClone(work / "before") as clone:
        version = clone.registry.head("staging").version
        shutil.move(clone.folder, work / "after")
        clone.folder = work / "after"
        idle = twinflow(clone.folder, "retrain")
        assert idle.returncode == 0, idle.stderr[-1500:]
        assert "Nothing to do" in idle.stdout, idle.stdout[-1500:]
        drawn = twinflow(clone.folder, "generate", "a red circle", "--out", "drawn.png", "--json")
        assert drawn.returncode == 0, drawn.stderr[-1500:]
        assert str(version) in drawn.stdout, drawn.stdout
        clone.set_param("finetune.seed", 4711)
        done = twinflow(clone.folder, "retrain", "--json")
        assert done.returncode == 0, done.stderr[-1500:]
        assert '"state": "promoted"' in done.stdout, done.stdout[-800:]
        assert not (work / "before").exists(), "something was written at the old place"
    return {"by": str(TWINFLOW.name)}


def soak_places(work: Path, fillings: int) -> Ledger:
    """Fill the disk under every stage so many times, and move a clone once."""
    ledger = Ledger("places")
    with small_disk(work / "disk") as disk:
        for number in range(fillings):
            for stage in STAGES:
                ledger.run(f"full disk in {stage} {number}", _filling(disk, stage, number))
    ledger.run("moved repository 0", lambda: moved_clone(work))
    return ledger


def _filling(disk: SmallDisk, stage: str, number: int) -> Callable[[], Cell]:
    return lambda: one_filling(disk, stage, number)
