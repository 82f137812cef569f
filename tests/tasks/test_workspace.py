"""Snapshots of real git repositories: all of the user's edits, none of their checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tasks import workspace
from tasks.git import git, require_repository
from twinflow_core.errors import TwinflowError

RUN = "20260101-000000-abcd"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, whose owner never told git a name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.delenv("EMAIL", raising=False)
    root = tmp_path / "clone"
    (root / "assets/photos").mkdir(parents=True)
    (root / ".gitignore").write_text("/ignored/\n")
    (root / "assets/photos/1.png").write_bytes(b"one")
    (root / "code.py").write_text("old\n")
    (root / "gone.py").write_text("gone\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"], cwd=root, check=True
    )
    return root


def test_edits_are_in_and_the_checkout_is_untouched(root: Path) -> None:
    (root / "code.py").write_text("new\n")
    (root / "gone.py").unlink()
    (root / "added.py").write_text("added\n")
    (root / "with space [1].py").write_text("odd\n")
    (root / "ignored").mkdir()
    (root / "ignored/x").write_text("no\n")
    (root / "huge.bin").write_bytes(b"0" * (workspace.LARGEST_UNTRACKED_BYTES + 1))
    before = git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD")
    index = (root / ".git/index").read_bytes()
    snapshot = workspace.take_snapshot(root, RUN, ["assets/photos"])
    tree = root / ".state" / "tree"
    with workspace.working_tree(root, snapshot, tree):
        assert (tree / "code.py").read_text() == "new\n"
        assert (tree / "added.py").exists()
        assert (tree / "with space [1].py").exists()
        assert not (tree / "gone.py").exists()
        assert not (tree / "ignored").exists()
        assert (tree / "assets/photos/1.png").read_bytes() == b"one"
        assert not (tree / "assets/photos").is_symlink()
    assert not tree.exists()
    assert snapshot.left_out == ("huge.bin",)
    assert (root / ".git/index").read_bytes() == index
    assert (git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD")) == before
    assert git(root, "log", "-1", "--format=%an", snapshot.branch) == "twinflow"


def test_an_untracked_image_links_the_folder_and_is_not_committed(root: Path) -> None:
    (root / "assets/photos/2.png").write_bytes(b"two")
    snapshot = workspace.take_snapshot(root, RUN, ["assets/photos"])
    tree = root / ".state" / "tree"
    with workspace.working_tree(root, snapshot, tree):
        assert (tree / "assets/photos/2.png").read_bytes() == b"two"
    assert (root / "assets/photos/1.png").exists()
    assert "2.png" not in git(root, "ls-tree", "-r", "--name-only", snapshot.branch)


@pytest.mark.parametrize("name", ["ignored/mine", "untracked", "../beside"])
def test_a_folder_that_git_does_not_know_is_linked(root: Path, name: str) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "a.png").write_bytes(b"a")
    snapshot = workspace.take_snapshot(root, RUN, [name])
    tree = root / ".state" / "run" / "tree"
    with workspace.working_tree(root, snapshot, tree):
        assert (tree / name / "a.png").read_bytes() == b"a"
    assert (root / name / "a.png").exists()


def test_a_folder_too_far_out_is_refused_and_nothing_stays(root: Path) -> None:
    (root / "../../far").mkdir(exist_ok=True)
    snapshot = workspace.take_snapshot(root, RUN, ["../../far"])
    tree = root / ".state" / "run" / "tree"
    with pytest.raises(TwinflowError, match="too far"), workspace.working_tree(root, snapshot, tree):
        pass
    assert not tree.exists()
    workspace.forget(root, snapshot)
    assert git(root, "branch", "--list", "runs/*") == ""


def test_the_lock_goes_to_the_branch(root: Path, tmp_path: Path) -> None:
    snapshot = workspace.take_snapshot(root, RUN, [])
    (tmp_path / "some.lock").write_text("schema: '2.0'\n")
    commit = workspace.commit_lock(root, snapshot, tmp_path / "some.lock")
    assert git(root, "show", f"{snapshot.branch}:dvc.lock") == "schema: '2.0'"
    assert git(root, "rev-parse", f"{commit}^") == snapshot.commit
    assert not (root / "dvc.lock").exists()


def test_trees_of_killed_runs_are_swept(root: Path) -> None:
    snapshot = workspace.take_snapshot(root, RUN, [])
    runs = root / ".state/runs"
    git(root, "worktree", "add", "-q", str(runs / RUN / "tree"), snapshot.branch)
    assert workspace.sweep_working_trees(root, runs) == [runs / RUN / "tree"]
    assert len(git(root, "worktree", "list").splitlines()) == 1
    git(root, "branch", "-D", snapshot.branch)


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "a.py").write_text("a\n")
    snapshot = workspace.take_snapshot(tmp_path, RUN, [])
    assert git(tmp_path, "show", f"{snapshot.branch}:a.py") == "a"


def test_no_repository_and_no_git(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TwinflowError, match="not its top"):
        require_repository(root / "assets")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TwinflowError, match="git is not installed"):
        require_repository(root)
