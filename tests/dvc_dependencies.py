"""Which modules each stage imports, by grimp's graph, and dvc.yaml made to say exactly that.

`python -m tests.dvc_dependencies --write` rewrites dvc.yaml after an import was added or removed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import grimp
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "twinflow_core"
STAGES = f"{PACKAGE}.stages"
FILE = ROOT / "dvc.yaml"


def stage_modules() -> dict[str, list[str]]:
    """The source files, relative to the root, that each stage of dvc.yaml imports, itself included."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    names = yaml.safe_load(FILE.read_text())["stages"]
    return {name: _files(graph, f"{STAGES}.{name}") for name in names}


def declared_modules() -> dict[str, list[str]]:
    """The source files that dvc.yaml lists for each stage, in its order."""
    stages = yaml.safe_load(FILE.read_text())["stages"]
    return {
        name: [path for path in stage["deps"] if path.startswith(f"{PACKAGE}/")]
        for name, stage in stages.items()
    }


def rewritten(text: str, modules: dict[str, list[str]]) -> str:
    """dvc.yaml's text with the code dependencies of each stage replaced; all else stays as it is."""
    lines: list[str] = []
    stage = ""
    for line in text.splitlines():
        if re.fullmatch(r"      - twinflow_core/\S+", line):
            continue
        started = re.fullmatch(r"  (\w+):", line)
        stage = started.group(1) if started else stage
        if line.startswith("    outs:"):
            lines.extend(f"      - {path}" for path in modules[stage])
        lines.append(line)
    return "\n".join(lines) + "\n"


def _files(graph: grimp.ImportGraph, module: str) -> list[str]:
    if module not in graph.modules:
        raise SystemExit(f"dvc.yaml names the stage {module!r}, which does not exist.")
    reached = {module, *graph.find_upstream_modules(module)}
    # Importing a module runs the __init__ of every package above it, and what those import.
    while missing := {parent for name in reached for parent in _parents(name)} - reached:
        reached |= missing.union(*(graph.find_upstream_modules(name) for name in missing))
    return sorted(_file(name) for name in reached)


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _file(module: str) -> str:
    path = Path(*module.split("."))
    return (path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")).as_posix()


if __name__ == "__main__":
    found = stage_modules()
    if "--write" in sys.argv[1:]:
        FILE.write_text(rewritten(FILE.read_text(), found))
    elif found != declared_modules():
        sys.exit("dvc.yaml is behind the imports: python -m tests.dvc_dependencies --write")
