"""A run's folder read into a report: the worst prompts, the log, the hashes; what is missing is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.gates.measured import sample_table
from twinflow_core.report.collect import collect_report, output_hashes, read_training_log, worst_prompts


def write_samples(path: Path, correct: Mapping[str, Sequence[float]], model: str, setting: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "model": model,
            "setting": setting,
            "task": "counting",
            "prompt_id": prompt_id,
            "prompt": f"a photo of {prompt_id}",
            "sample": sample,
            "correct": value,
            "reason": "" if value == 1 else "too many",
            "image": f"{model}/{prompt_id}/{sample}".encode(),
        }
        for prompt_id, values in correct.items()
        for sample, value in enumerate(values)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_worst_prompts_are_those_that_fall_behind_most(tmp_path: Path) -> None:
    candidate = {"all-right": [1, 1], "lost": [0, 0], "half": [1, 0], "hard": [0, 0]}
    reference = {"all-right": [1, 1], "lost": [1, 1], "half": [1, 1], "hard": [0, 0]}
    worst = worst_prompts(
        write_samples(tmp_path / "a.parquet", candidate, "candidate", "nfe1"),
        write_samples(tmp_path / "b.parquet", reference, "reference", "many"),
    )
    assert [each.prompt for each in worst] == [f"a photo of {name}" for name in ("lost", "half", "hard")]
    lost = worst[0]
    assert lost.candidate == (b"candidate/lost/0", b"candidate/lost/1")
    assert lost.other == (b"reference/lost/0", b"reference/lost/1")
    assert (lost.candidate_correct, lost.other_correct, lost.reasons) == (0, 2, ("too many",))


def test_a_champion_is_compared_at_one_step(tmp_path: Path) -> None:
    candidate = write_samples(tmp_path / "a.parquet", {"p": [0, 1]}, "candidate", "nfe1")
    champion = write_samples(tmp_path / "b.parquet", {"p": [1, 1]}, "served", "nfe1")
    (worst,) = worst_prompts(candidate, champion)
    assert worst.other[0] == b"served/p/0"


def test_images_that_are_not_judged_have_no_worst(tmp_path: Path) -> None:
    nan = float("nan")
    candidate = write_samples(tmp_path / "a.parquet", {"p": [nan, nan]}, "candidate", "nfe1")
    assert worst_prompts(candidate, candidate) == ()


def test_training_log_keeps_gaps(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,loss,loss_fake\n10,0.5,\n20,0.25,0.1\n")
    log = read_training_log(tmp_path / "log.csv")
    assert log["loss"] == [0.5, 0.25]
    assert math.isnan(log["loss_fake"][0])
    (tmp_path / "log.csv").write_text("step,loss\n")
    assert read_training_log(tmp_path / "log.csv") == read_training_log(tmp_path / "missing.csv") == {}


def test_hashes_out_of_dvc_lock(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text(
        "schema: '2.0'\nstages:\n  prepare:\n    outs:\n    - {path: data/prepared, md5: 0a.dir}\n"
    )
    (fact,) = output_hashes(lock)
    assert (fact.label, fact.value) == ("prepare: data/prepared", "0a.dir")


def test_an_empty_folder_is_an_empty_report(tmp_path: Path) -> None:
    report = collect_report(tmp_path, run="r")
    assert (report.metrics, report.training, report.grid, report.worst, report.params) == (
        {},
        {},
        None,
        (),
        {},
    )


def test_reads_what_is_there(tmp_path: Path) -> None:
    for folder in ("eval/candidate", "data/prepared"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "eval/candidate/metrics.json").write_text(json.dumps({"scorer": "shapes"}))
    (tmp_path / "eval/candidate/grid.png").write_bytes(b"png")
    (tmp_path / "data/prepared/summary.json").write_text(json.dumps({"rows": 3}))
    (tmp_path / "params.yaml").write_text("data: {source: x}\n")
    pq.write_table(sample_table({("candidate", "nfe1"): 0.5}), tmp_path / "eval/candidate/samples.parquet")
    report = collect_report(tmp_path, run="r")
    assert report.metrics == {"scorer": "shapes"}
    assert (report.grid, report.data, report.params) == (b"png", {"rows": 3}, {"data": {"source": "x"}})
