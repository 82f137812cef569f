"""dvc.yaml says exactly which code each stage runs, so that touching a gate never retrains."""

from __future__ import annotations

from tests.dvc_dependencies import FILE, declared_modules, rewritten, stage_modules

REWRITE = "run: python -m tests.dvc_dependencies --write"


def test_dvc_yaml_lists_exactly_the_imported_modules() -> None:
    assert declared_modules() == stage_modules(), REWRITE


def test_rewriting_changes_nothing_when_all_is_said() -> None:
    assert rewritten(FILE.read_text(), stage_modules()) == FILE.read_text(), REWRITE


def test_no_stage_depends_on_what_only_judges_or_serves() -> None:
    for name, modules in stage_modules().items():
        behind = [path for path in modules if path.split("/")[1] in {"gates", "registry", "local", "report"}]
        # The comparison grid is part of the evaluation's output.
        assert [path for path in behind if not path.startswith("twinflow_core/report/")] == [], name
