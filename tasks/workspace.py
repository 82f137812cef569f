"""A run's own working tree: the user's files as they are now, on a branch, away from the checkout.

The checkout, its index and its branch are never touched: the user may go on editing, and two runs never meet.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.git import commit_tree, git
from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.registry.store import ObjectStore
from twinflow_core.run_record import RunRecord, run_key

LARGEST_UNTRACKED_BYTES = 2_000_000
BRANCHES = "runs/"
LOCK_FILE = "dvc.lock"


@dataclass(frozen=True)
class Snapshot:
    """The user's tree as a commit on the branch `runs/<id>`.

    Attributes:
        branch: the branch's name.
        commit: its hash.
        linked: folders that the commit lacks and the tree gets as links: (path in params, the folder).
        left_out: untracked files too large to be committed.
    """

    branch: str
    commit: str
    linked: tuple[tuple[str, Path], ...]
    left_out: tuple[str, ...]


def take_snapshot(root: Path, run_id: str, inputs: list[str]) -> Snapshot:
    """Commit the user's tree, uncommitted edits included, to the branch `runs/<id>`.

    Untracked files below an input folder are never committed: data may be huge, and DVC is what keeps it.
    Such a folder is linked into the run's tree instead.

    Args:
        root: the repository's top.
        run_id: the run.
        inputs: the input folders as params.yaml names them, relative to `root` or absolute.
    """
    linked = tuple((name, root / name) for name in inputs if _must_be_linked(root, name))
    below_links = tuple(f"{name.rstrip('/')}/" for name, _ in linked)
    untracked = _paths(git(root, "ls-files", "-z", "--others", "--exclude-standard"))
    candidates = [name for name in untracked if not name.startswith(below_links)]
    left_out = [name for name in candidates if (root / name).lstat().st_size > LARGEST_UNTRACKED_BYTES]
    chosen = sorted(set(candidates) - set(left_out))
    head = git(root, "rev-parse", "--verify", "--quiet", "HEAD", check=False) or None
    index = root / git(root, "rev-parse", "--git-path", "index")
    add = ["add", "--pathspec-from-file=-", "--pathspec-file-nul"]
    stage: list[tuple[list[str], str | None]] = [(["add", "--update"], None)]
    if chosen:
        stage.append((add, "\0".join(f":(literal){name}" for name in chosen)))
    commit = commit_tree(root, message=f"Run {run_id}", parent=head, index_from=index, stage=stage)
    branch = f"{BRANCHES}{run_id}"
    git(root, "update-ref", f"refs/heads/{branch}", commit)
    return Snapshot(branch, commit, linked, tuple(left_out))


@contextmanager
def working_tree(root: Path, snapshot: Snapshot, tree: Path) -> Iterator[Path]:
    """Check the snapshot out at `tree`, link its inputs, and remove it all at the end, whatever happens."""
    git(root, "worktree", "add", "--quiet", "--force", str(tree), snapshot.branch)
    try:
        for name, folder in snapshot.linked:
            _link(tree, name, folder)
        yield tree
    finally:
        remove_working_tree(root, tree)


def fetch_code(root: Path, store: ObjectStore, record: RunRecord, place: Path) -> Snapshot:
    """A run's commit out of its bundle in the bucket, on the branch that it had.

    Args:
        root: the repository that gets the branch.
        store: the bucket.
        record: the run's.
        place: a folder for the bundle.

    Raises:
        InfrastructureError: the bundle is not of the commit that the record names.
    """
    bundle = place / "code.bundle"
    bundle.write_bytes(store.get(run_key(record.id, bundle.name)))
    branch = f"{BRANCHES}{record.id}"
    reference = f"refs/heads/{branch}"
    git(root, "fetch", "--quiet", "--force", "--no-tags", str(bundle), f"{reference}:{reference}")
    found = git(root, "rev-parse", reference)
    if found != record.commit:
        raise InfrastructureError(
            f"The bundle holds commit {found[:12]}, the record names {record.commit[:12]}.",
            where=store.address(run_key(record.id, bundle.name)),
            fix="The run's objects in the bucket were changed; restore them from a backup.",
        )
    return Snapshot(branch, record.commit, (), ())


def remove_working_tree(root: Path, tree: Path) -> None:
    """Remove a run's tree and git's note of it; nothing happens if there is none."""
    shutil.rmtree(tree, ignore_errors=True)
    git(root, "worktree", "prune")


def sweep_working_trees(root: Path, runs: Path) -> list[Path]:
    """Remove the trees that killed runs left under `runs/<id>/tree`; only the holder of the run lock may."""
    left = sorted(runs.glob("*/tree"))
    for tree in left:
        remove_working_tree(root, tree)
    return left


def commit_lock(root: Path, snapshot: Snapshot, lock: Path) -> str:
    """Put a run's dvc.lock on its branch, so that `git checkout runs/<id> && dvc repro` gives the same.

    Returns:
        The commit's hash.
    """
    blob = git(root, "hash-object", "-w", str(lock))
    commit = commit_tree(
        root,
        message=f"Lock of {snapshot.branch}",
        parent=snapshot.commit,
        index_from=None,
        stage=[(["update-index", "--add", "--cacheinfo", f"100644,{blob},{LOCK_FILE}"], None)],
    )
    git(root, "update-ref", f"refs/heads/{snapshot.branch}", commit)
    return commit


def forget(root: Path, snapshot: Snapshot) -> None:
    """Delete the branch of a run that came to nothing."""
    git(root, "update-ref", "-d", f"refs/heads/{snapshot.branch}")


def _must_be_linked(root: Path, name: str) -> bool:
    """Whether a relative input folder holds anything that the commit will not."""
    if Path(name).is_absolute():
        return False
    outside = not (root / name).resolve().is_relative_to(root.resolve())
    return outside or bool(git(root, "ls-files", "--others", "--directory", "--", name))


def _link(tree: Path, name: str, folder: Path) -> None:
    place = Path(os.path.normpath(tree / name))
    if not place.is_relative_to(tree.parent):
        raise TwinflowError(
            f"`{name}` leads too far out of the repository for a run's own tree to follow.",
            where="params.yaml",
            fix=f"Give the absolute path: {folder.resolve()}",
        )
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(folder.resolve(), target_is_directory=True)


def _paths(listing: str) -> list[str]:
    return [name for name in listing.split("\0") if name]
