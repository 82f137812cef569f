"""SIGKILL at random moments: in every stage, while publishing, right before and right after the commit."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import yaml

from benchmarks.soak.ledger import Cell, Ledger
from benchmarks.soak.soaked_clone import RUN_SECONDS, SoakedClone, soak_in_a_clone
from tests.fault_proxy import FaultProxy, Hangup, Request, Response
from tests.tiny_pipeline import build_tiny_pipeline

STAGES = ("raw", "base", "prepare", "encode", "reference", "finetune", "evaluate", "export")
PROXIED = ("publish", "before the commit", "after the commit")
KILLS = 5
# About as many objects does a tiny run write after its last stage.
WRITES_OF_A_RUN = 60
VICTIMS = ("everything", "the stage", "the flow")
TRIES = 4


def one_kill(clone: SoakedClone, point: str, seed: int) -> Cell:
    """Change what the point depends on, kill there, look at the world, and run to the end.

    Raises:
        AssertionError: a promise is broken, or the moment was never hit.
    """
    draws = random.Random(f"{point} {seed}")
    before = clone.require_whole_world()
    told: Cell = {}
    for attempt in range(TRIES):
        _change(clone, point, draws.randrange(1, 1_000_000))
        strike = _strike_by_proxy if point in PROXIED else _strike_stage
        told = strike(clone, point, draws, 1.0 / (attempt + 1))
        if told["hit"]:
            break
    assert told["hit"], "the run was over before the kill"
    told["gone_after"] = clone.require_all_gone()
    between = clone.require_whole_world()
    finished = clone.run_to_the_end()
    assert finished["state"] == "promoted", finished["reason"]
    after = clone.require_whole_world()
    assert after - before <= 1 + attempt, f"{after - before} promotions of one change"
    assert clone.registry.head("staging").version == finished["version"], "staging serves something else"
    assert not list((clone.folder / ".twinflow/runs").glob("*/tree")), "a tree is left"
    if point == "after the commit":
        assert between == after, "what was committed before the kill was committed again"
    return {**told, "entries": [before, between, after]}


def _change(clone: SoakedClone, point: str, number: int) -> None:
    """Change the input that makes a point's work necessary again, and as little else as possible."""
    if point == "raw":
        shapes = clone.folder / "tests/tiny_shapes/shapes.yaml"
        document = yaml.safe_load(shapes.read_text(encoding="utf-8"))
        shapes.write_text(yaml.safe_dump({**document, "seed": number}), encoding="utf-8")
    elif point == "base":
        build_tiny_pipeline(clone.folder / "tiny_base", seed=number)
    elif point == "prepare":
        clone.set_param("data.max_rejected", 0.2 + number * 1e-8)
    elif point == "encode":
        clone.set_param("encode.batch_size", 16 + number % 64)
    elif point in ("reference", "evaluate"):
        clone.set_param("evaluate.seed", number)
    else:
        clone.set_param("finetune.seed", number)


def _strike_stage(clone: SoakedClone, stage: str, draws: random.Random, share: float) -> Cell:
    run = clone.start("retrain")
    victim = draws.choice(VICTIMS)
    process = clone.wait_for_stage(stage, run)
    moment = draws.random() * share * clone.durations.get(stage, 3.0)
    time.sleep(moment)
    hit = process is not None and process.is_running()
    if hit and victim == "the stage":
        _kill(process)
    elif hit and victim == "the flow":
        for each in clone.processes():
            if "flows.retrain" in " ".join(each.cmdline()):
                _kill(each)
    elif hit:
        clone.kill_everything()
    _wait(run)
    return {"hit": hit, "victim": victim, "moment": round(moment, 2)}


def _strike_by_proxy(clone: SoakedClone, point: str, draws: random.Random, share: float) -> Cell:
    nth = draws.randrange(max(1, int(WRITES_OF_A_RUN * share)))
    how = draws.choice(("before", "within", "after"))
    struck: list[str] = []
    writes = [0]

    def fault(request: Request) -> Response:
        if struck:
            raise Hangup
        if request.method != "PUT":
            return request.forward()
        commit = "/channels/staging/log/" in request.key
        writes[0] += 0 if commit else 1
        if not (commit if point != "publish" else writes[0] == nth + 1):
            return request.forward()
        struck.append(request.key)
        if point == "after the commit" or (point == "publish" and how == "after"):
            request.forward()
        elif point == "publish" and how == "within":
            request.read_half()
        clone.kill_everything()
        raise Hangup

    with FaultProxy(clone.services.s3.endpoint) as proxy:
        proxy.fault = fault
        _wait(clone.start("retrain", AWS_ENDPOINT_URL_S3=proxy.endpoint))
    return {"hit": bool(struck), "victim": "everything", "key": _shape(struck)}


def _shape(keys: list[str]) -> str:
    """What kind of object it was, without names that differ from run to run."""
    parts = keys[0].split("/") if keys else []
    return "/".join(part for part in parts if len(part) < 20 and not part[:8].isdigit())


def _kill(process: psutil.Process | None) -> None:
    if process is not None:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return


def _wait(run: subprocess.Popen[str]) -> None:
    run.communicate(timeout=RUN_SECONDS)


def soak_kills(work: Path, kills: int) -> Ledger:
    """Strike every point so many times, but for what the results hold already."""
    cells = [(point, number) for number in range(kills) for point in (*STAGES, *PROXIED)]
    return soak_in_a_clone("kills", work, cells, one_kill)
