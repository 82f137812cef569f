"""DVC as a child process: the DAG's order, a run's private settings, one stage at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from configparser import ConfigParser
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from tasks.process import Finished, run_logged
from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.home import HOME_VARIABLE, state_home
from twinflow_core.progress import Step

REMOTE = "bucket"
REMOTE_PREFIX = "dvc"


@dataclass(frozen=True)
class DvcTree:
    """A folder with dvc.yaml, the environment its children get, and the file their output goes to.

    Attributes:
        tree: the run's working tree.
        env: the whole environment of its child processes.
        log: file that all output is appended to.
    """

    tree: Path
    env: Mapping[str, str]
    log: Path

    def run(
        self,
        *arguments: str,
        on_line: Callable[[str], None] | None = None,
        on_progress: Callable[[Step], None] | None = None,
        timeout_seconds: float | None = None,
    ) -> Finished:
        """Run `dvc <arguments>`; see `run_logged`."""
        return run_logged(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.tree,
            env=self.env,
            log=self.log,
            on_line=on_line,
            on_progress=on_progress,
            timeout_seconds=timeout_seconds,
        )

    def require(self, *arguments: str, on_line: Callable[[str], None] | None = None) -> Finished:
        """Run `dvc <arguments>`; an `InfrastructureError` with its last lines if it fails."""
        done = self.run(*arguments, on_line=on_line)
        if done.code != 0:
            raise InfrastructureError(
                f"`dvc {arguments[0]}` failed: {_last_error(done)}",
                where=str(self.log),
                fix="Read the log; `twinflow doctor` checks the services.",
            )
        return done


def child_environment(root: Path, tree: Path, services: Mapping[str, str]) -> dict[str, str]:
    """The environment of everything that runs in a run's tree.

    Args:
        root: the main checkout; state stays there.
        tree: the run's tree; its code is what `import twinflow_core` finds.
        services: variables of the S3 and Prefect servers.
    """
    home = state_home(root)
    binaries = Path(sys.executable).parent
    return {
        **os.environ,
        **services,
        HOME_VARIABLE: str(home),
        "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(tree),
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        "DVC_NO_ANALYTICS": "1",
        # No terminal bars in a log; progress comes as lines of its own.
        "TERM": "dumb",
    }


def share_cache(root: Path, tree: Path, bucket: str) -> None:
    """Give a run's tree the main checkout's DVC cache and the bucket as its remote, checked on every read."""
    settings = ConfigParser()
    settings["cache"] = {"dir": str(cache_folder(root))}
    settings["core"] = {"remote": REMOTE}
    settings[f"'remote \"{REMOTE}\"'"] = {"url": f"s3://{bucket}/{REMOTE_PREFIX}", "verify": "true"}
    with (tree / ".dvc" / "config.local").open("w", encoding="utf-8") as file:
        settings.write(file)


def stage_order(tree: Path) -> list[str]:
    """The stages of dvc.yaml so that each comes after those it reads from; else in the file's order.

    Raises:
        TwinflowError: dvc.yaml is missing or no DAG.
    """
    graph = _stage_graph(tree)
    sorter = TopologicalSorter(graph)
    order: list[str] = []
    try:
        sorter.prepare()
    except CycleError as error:
        raise _not_a_dag(tree, error) from None
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=list(graph).index)
        order.extend(ready)
        sorter.done(*ready)
    return order


def needed_for(tree: Path, target: str) -> set[str]:
    """The stages whose outputs a stage is made from, directly or not, itself included."""
    graph = _stage_graph(tree)
    needed: set[str] = set()
    waiting = [target]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(graph[name])
    return needed


def _stage_graph(tree: Path) -> dict[str, list[str]]:
    """Each stage and those that it reads from."""
    try:
        text = (tree / "dvc.yaml").read_text(encoding="utf-8")
        stages: dict[str, Any] = yaml.safe_load(text)["stages"]
        makers = [(out, name) for name, stage in stages.items() for out in stage["outs"]]
        return {
            name: [maker for out, maker in makers for dep in stage["deps"] if Path(dep).is_relative_to(out)]
            for name, stage in stages.items()
        }
    except (OSError, AttributeError, KeyError, TypeError, yaml.YAMLError) as error:
        raise _not_a_dag(tree, error) from None


def _not_a_dag(tree: Path, error: Exception) -> TwinflowError:
    return TwinflowError(
        f"dvc.yaml cannot be read as a DAG: {error}",
        where=str(tree / "dvc.yaml"),
        fix="Restore it from git.",
    )


def cache_folder(root: Path) -> Path:
    """The main checkout's cache: its own `cache.dir` if the user has set one, else `.dvc/cache`."""
    settings = ConfigParser(interpolation=None)
    settings.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    own = settings.get("cache", "dir", fallback=None)
    return (root / ".dvc" / own if own else root / ".dvc" / "cache").resolve()


def _last_error(done: Finished) -> str:
    errors = [line.removeprefix("ERROR: ") for line in done.tail if line.startswith("ERROR: ")]
    return errors[-1] if errors else (done.tail[-1] if done.tail else f"exit code {done.code}")
