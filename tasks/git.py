"""The few git commands that runs need. They never touch the checkout, its index, its hooks or its config."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from twinflow_core.errors import TwinflowError

# Used when the user has told git no name: a run's commit must not fail for want of one.
NEUTRAL_NAME = "twinflow"
NEUTRAL_EMAIL = "twinflow@localhost"


def git(
    root: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
    check: bool = True,
) -> str:
    """Run git in a folder and return its output without the last newline ("" if it fails and `check` is off).

    Raises:
        TwinflowError: git is not installed, the folder is no repository, or the command failed.
    """
    command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env={**os.environ, **(env or {})},
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise TwinflowError(
            "git is not installed.",
            where="PATH",
            fix="Install git (for example: apt install git): every run is recorded as a commit.",
        ) from None
    if done.returncode != 0:
        if not check:
            return ""
        raise TwinflowError(
            f"`git {arguments[0]}` failed: {done.stderr.strip() or done.stdout.strip()}",
            where=str(root),
            fix="Run twinflow in a git clone of the pipeline, and put right what git says.",
        )
    return done.stdout.rstrip("\n")


def require_repository(root: Path) -> None:
    """Check that git is there and that `root` is the top folder of a repository.

    Raises:
        TwinflowError: it is not.
    """
    top = git(root, "rev-parse", "--show-toplevel")
    if Path(top).resolve() != root.resolve():
        raise TwinflowError(
            "This folder lies inside a git repository but is not its top.",
            where=f"{root}, in {top}",
            fix="Run twinflow in a clone of its own.",
        )


def commit_tree(
    root: Path,
    *,
    message: str,
    parent: str | None,
    index_from: Path | None,
    stage: Iterable[tuple[list[str], str | None]],
) -> str:
    """Make a commit with an index of its own.

    Args:
        root: the repository.
        message: the commit's message.
        parent: the commit before it; None for a first commit.
        index_from: index file to start from (it is copied); None starts from the parent's tree.
        stage: git commands, each with the text for its standard input, that fill the index.

    Returns:
        The commit's hash. No branch is moved.
    """
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        env = {"GIT_INDEX_FILE": str(index), **_identity(root)}
        if index_from is not None and index_from.exists():
            shutil.copyfile(index_from, index)
        elif parent is not None:
            git(root, "read-tree", parent, env=env)
        for command, text in stage:
            git(root, *command, env=env, text=text)
        tree = git(root, "write-tree", env=env)
        parents = ["-p", parent] if parent else []
        return git(root, "commit-tree", tree, *parents, "-m", message, env=env)


def _identity(root: Path) -> dict[str, str]:
    """Variables that name an author and committer, empty if the user has told git who they are."""
    if git(root, "var", "GIT_COMMITTER_IDENT", check=False):
        return {}
    return {
        "GIT_AUTHOR_NAME": NEUTRAL_NAME,
        "GIT_AUTHOR_EMAIL": NEUTRAL_EMAIL,
        "GIT_COMMITTER_NAME": NEUTRAL_NAME,
        "GIT_COMMITTER_EMAIL": NEUTRAL_EMAIL,
    }
