"""Read what the stages of a run left in its folder into a report; what is not there is left out."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from twinflow_core.gates.decision import Mode, Outcome
from twinflow_core.params import PARAMS_FILE
from twinflow_core.report.context import Fact, GateResult, PromptImages, ReportContext

WORST_PROMPTS = 6


def collect_report(
    root: Path,
    *,
    run: str,
    model: str = "",
    outcome: Outcome | None = None,
    result: str = "",
    mode: Mode = "enforce",
    created: str = "",
    gates: Sequence[GateResult] = (),
    speeds: Sequence[Fact] = (),
    lineage: Sequence[Fact] = (),
    commands: Sequence[Fact] = (),
    champion_samples: Path | None = None,
) -> ReportContext:
    """A report of the run whose stage outputs lie under `root`.

    Args:
        root: holds `eval/`, `models/`, `data/`, `params.yaml` and `dvc.lock`, as far as the run came.
        champion_samples: the champion's samples.parquet; without it the candidate's worst prompts are shown
            beside the base.
        run, model, outcome, result, mode, created, gates, speeds, lineage, commands: as in `ReportContext`;
            the hashes of dvc.lock are added to `lineage`.
    """
    candidate, reference = root / "eval/candidate/samples.parquet", root / "eval/reference/samples.parquet"
    others = champion_samples or reference
    grid = root / "eval/candidate/grid.png"
    return ReportContext(
        run=run,
        model=model,
        outcome=outcome,
        result=result,
        mode=mode,
        created=created,
        gates=tuple(gates),
        metrics=_json(root / "eval/candidate/metrics.json"),
        training=read_training_log(root / "models/candidate/training_log.csv"),
        grid=grid.read_bytes() if grid.exists() else None,
        worst=worst_prompts(candidate, others) if candidate.exists() and others.exists() else (),
        other="the champion" if champion_samples else "the base at many steps",
        data=_json(root / "data/prepared/summary.json"),
        speeds=tuple(speeds),
        params=_yaml(root / PARAMS_FILE),
        lineage=(*lineage, *output_hashes(root / "dvc.lock")),
        commands=tuple(commands),
    )


def read_training_log(path: Path) -> dict[str, list[float]]:
    """Columns of the training log by name; an empty cell is NaN, a missing file gives no columns."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        name: [float(row[name]) if row[name] else math.nan for row in rows]
        for name in (rows[0] if rows else ())
    }


def worst_prompts(
    candidate: Path, other: Path, setting: str = "nfe1", count: int = WORST_PROMPTS
) -> tuple[PromptImages, ...]:
    """The prompts on which the candidate falls behind the other model most, at fewest steps.

    Args:
        candidate: its samples.parquet.
        other: the samples.parquet of the champion, or of the reference, whose many-step images are taken.
        setting: the candidate's setting, and the champion's.
        count: at most so many.

    Returns:
        Worst first; no prompt whose images are all correct, none at all if images are not judged.
    """
    ours = _by_prompt(candidate, (setting,))
    theirs = _by_prompt(other, ("many", setting))
    ranked = []
    for prompt_id, rows in ours.items():
        beside = theirs.get(prompt_id, [])
        right, other_right = _correct(rows), _correct(beside)
        if math.isnan(right) or right == len(rows):
            continue
        behind = right / len(rows) - (other_right / len(beside) if beside else 0.0)
        ranked.append((behind, right / len(rows), prompt_id))
    shown = []
    for _, _, prompt_id in sorted(ranked)[:count]:
        rows, beside = ours[prompt_id], theirs.get(prompt_id, [])
        shown.append(
            PromptImages(
                prompt=rows[0]["prompt"],
                task=rows[0]["task"],
                candidate=tuple(row["image"] for row in rows),
                other=tuple(row["image"] for row in beside),
                candidate_correct=int(_correct(rows)),
                other_correct=int(_correct(beside)),
                reasons=tuple(dict.fromkeys(row["reason"] for row in rows if row["reason"])),
            )
        )
    return tuple(shown)


def output_hashes(lock: Path) -> tuple[Fact, ...]:
    """The hash of every stage output, out of dvc.lock."""
    stages = _yaml(lock).get("stages", {})
    return tuple(
        Fact(f"{stage}: {output['path']}", str(output.get("md5", "")))
        for stage, entry in stages.items()
        for output in entry.get("outs", [])
    )


def _by_prompt(path: Path, settings: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of the first of these settings that the file has, by prompt, in order of the samples."""
    table = pq.read_table(path, columns=["setting", "prompt_id", "sample"]).to_pylist()
    setting = next((each for each in settings if any(row["setting"] == each for row in table)), None)
    columns = ["prompt_id", "prompt", "task", "sample", "correct", "reason", "image"]
    rows = pq.read_table(path, columns=columns, filters=[("setting", "==", setting)]).to_pylist()
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["prompt_id"], row["sample"])):
        grouped.setdefault(row["prompt_id"], []).append(row)
    return grouped


def _correct(rows: Sequence[dict[str, Any]]) -> float:
    """How many images are correct; NaN if one was not judged."""
    return sum(math.nan if row["correct"] is None else float(row["correct"]) for row in rows)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.exists() else {}
