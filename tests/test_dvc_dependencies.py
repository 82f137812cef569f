"""dvc.yaml says exactly which code each stage runs, so that touching a gate never retrains."""

from __future__ import annotations

from tests.dvc_dependencies import FILE, declared_modules, rewritten, stage_modules

REWRITE = "run: python -m tests.dvc_dependencies --write"


def test_dvc_yaml_lists_exactly_the_imported_modules() -> None:
    assert declared_modules() == stage_modules(), REWRITE


def test_rewriting_changes_nothing_when_all_is_said() -> None:
    assert rewritten(FILE.read_text(), stage_modules()) == FILE.read_text(), REWRITE


S3_CLIENT = {f"twinflow_core/registry/{name}.py" for name in ("__init__", "faults", "s3")}


def test_no_stage_depends_on_what_only_judges_or_serves() -> None:
    for name, modules in stage_modules().items():
        if name == "raw":
            # It alone reads from a bucket, by the one place that makes S3 clients; made again, its output is the same.
            modules = [path for path in modules if path not in S3_CLIENT]
        behind = [path for path in modules if path.split("/")[1] in {"gates", "registry", "local", "report"}]
        # The comparison grid is part of the evaluation's output.
        assert [path for path in behind if not path.startswith("twinflow_core/report/")] == [], name
