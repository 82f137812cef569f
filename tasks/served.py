"""An exported package drawn and scored in child processes: the one that draws has no torch, as in service."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.log import ProgressShown, run_log
from tasks.process import run_logged
from tasks.run import Run
from twinflow_core.errors import InfrastructureError
from twinflow_core.home import state_home
from twinflow_core.runtime.package import read_manifest

EVALUATION = "twinflow_core.evaluation.served"
# What the scores of a package depend on besides its bytes: code by folder, parameters by section.
EVALUATOR_CODE = ("data", "evaluation", "runtime", "noise.py")


@dataclass(frozen=True)
class Served:
    """What a package drew, scored: samples.parquet, metrics (see `score_drawn`), and its speed."""

    samples: Path
    metrics: dict[str, Any]
    serving: dict[str, Any]


def evaluator_hash(run: Run) -> str:
    """SHA-256 of the code, the settings and the prepared data that make scores."""
    digest = hashlib.sha256()
    core = run.tree / "twinflow_core"
    for name in EVALUATOR_CODE:
        place = core / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(core).as_posix().encode() + b"\0" + path.read_bytes())
    digest.update(run.params.evaluate.model_dump_json().encode())
    digest.update(run.output_hash("data/prepared").encode())
    return digest.hexdigest()


def serve_candidate(run: Run) -> Served:
    """Draw and score the run's own package, timed, with as many prompts a task as `serving` says."""
    work = run.folder / "serving"
    shutil.rmtree(work, ignore_errors=True)
    package = run.tree / "export"
    steps = _steps(run, package)[:1]
    return _draw_and_score(run, package, "served", steps, run.params.serving.rescore_prompts_per_task, work)


def serve_champion(run: Run, version: str, larger: Sequence[int] = ()) -> Served:
    """Draw and score the champion's package on the candidate's prompts and noise.

    Done once for a version, a set of prompts and an evaluator; later runs read the same scores.

    Args:
        run: the run that is judged.
        version: the champion's.
        larger: the step counts to draw with on the larger set of a second look; empty for the evaluation's
            own prompts, at every step count that it has.
    """
    cache = state_home(run.root) / "cache"
    name = f"{version[:16]}-{evaluator_hash(run)[:16]}"
    if larger:
        gates = run.params.gates
        sizes = f"{gates.most_prompts_per_task}x{gates.most_images_per_prompt}"
        name += f"-{sizes}-{'-'.join(map(str, larger))}"
    place = cache / "champions" / name
    package = run.registry.fetch(version, cache / "versions")
    if not (place / "metrics.json").exists():
        work = place.with_name(f".{place.name}.{os.getpid()}")
        steps = [each for each in _steps(run, package) if not larger or each in larger]
        _draw_and_score(run, package, "champion", steps, None, work, larger=bool(larger))
        shutil.rmtree(place, ignore_errors=True)
        work.replace(place)
    return _read(place)


def candidate_once_more(run: Run, steps: Sequence[int]) -> tuple[Path, dict[str, Any]]:
    """The candidate in torch on the larger set of a second look: its samples.parquet and its metrics.

    Done once in a run: the gates may ask for it each in turn, and again when they judge again.
    """
    place = run.folder / "second_look" / "-".join(map(str, steps))
    if not (place / "metrics.json").exists():
        place.mkdir(parents=True, exist_ok=True)
        settings = [f"nfe{each}" for each in steps]
        _child(run, "twinflow_core.evaluation.second_look", "--settings", *settings, "--out", str(place))
    metrics: dict[str, Any] = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
    return place / "samples.parquet", metrics


def _steps(run: Run, package: Path) -> list[int]:
    """The step counts that the package can draw with and the candidate is evaluated at, ascending."""
    able = read_manifest(package).nfe
    both = [steps for steps in able if steps in run.params.evaluate.few_steps]
    return both or able[:1]


def _draw_and_score(
    run: Run,
    package: Path,
    model: str,
    steps: Sequence[int],
    prompts_per_task: int | None,
    work: Path,
    larger: bool = False,
) -> Served:
    work.mkdir(parents=True)
    request = work / "request.json"
    few = [] if prompts_per_task is None else ["--prompts-per-task", str(prompts_per_task)]
    of = ["--larger"] if larger else []
    _child(run, EVALUATION, *of, "request", *few, "--out", str(request))
    options = run.params.serving
    for count in steps:
        told = ["--package", str(package), "--prompts", str(request), "--out", str(work / f"nfe{count}")]
        timed = ["--batch", str(options.latency_batch), "--repeats", str(options.latency_repeats)]
        _child(run, "twinflow_core.runtime.serving_check", *told, "--steps", str(count), *timed)
    _child(run, EVALUATION, *of, "score", "--drawn", str(work), "--model", model, "--out", str(work))
    for images in work.glob("nfe*/images.npz"):
        images.unlink()
    return _read(work)


def _child(run: Run, module: str, *arguments: str) -> None:
    with ProgressShown(module.rsplit(".", 1)[1].replace("_", "-")) as progress:
        done = run_logged(
            [sys.executable, "-m", module, *arguments],
            cwd=run.tree,
            env=run.dvc.env,
            log=run.dvc.log,
            on_line=run_log().info,
            on_progress=progress.show,
            timeout_seconds=60.0 * run.params.run.stage_timeout_minutes,
        )
    if done.code != 0:
        raise InfrastructureError(
            f"`{module}` failed: {done.tail[-1] if done.tail else f'exit code {done.code}'}",
            where=str(run.dvc.log),
            fix="Read the end of the log.",
        )


def _read(work: Path) -> Served:
    metrics = json.loads((work / "metrics.json").read_text(encoding="utf-8"))
    fewest = next(iter(metrics["candidate"]))
    measured = json.loads((work / fewest / "result.json").read_text(encoding="utf-8"))
    per_second = 1000.0 * measured["batch"] / measured["p50_ms"]
    return Served(work / "samples.parquet", metrics, {**measured, "images_per_second": per_second})
