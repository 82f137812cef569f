"""A folder appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinflow_core.data.whole_folder import whole_folder


def test_the_new_folder_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "made"
    for name in ("old", "new"):
        with whole_folder(target) as folder:
            (folder / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with whole_folder(target) as folder:
        (folder / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(target)
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def _interrupted(target: Path) -> None:
    with whole_folder(target) as folder:
        (folder / "new").write_text("half")
        raise KeyboardInterrupt


def test_what_a_killed_run_left_is_cleared(tmp_path: Path) -> None:
    partial = tmp_path / ".made.partial"
    partial.mkdir()
    (partial / "rest").write_text("half")
    with whole_folder(tmp_path / "made") as folder:
        assert list(folder.iterdir()) == []
