"""What README and docs/ name exists: parameters, metrics, verbs and their options, make targets, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from twinflow_core.cli.app import app
from twinflow_core.gates.metrics import known_metrics
from twinflow_core.params import load_params

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PARAMS = REPOSITORY / "params.yaml"

FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
DOTTED = re.compile(r"([a-z]\w*(?:\.\w+)+)(?<!\.json)(?:: .*)?")
VERB = re.compile(r"(?<![\w/.-])twinflow +([a-z][a-z-]*)([^#\n]*)")
OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
METRIC_ROOTS = ("candidate", "ratio", "parity")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def code(page: Path) -> Iterator[str]:
    """The lines of fenced blocks, and inline code."""
    text = page.read_text(encoding="utf-8")
    for block in FENCE.findall(text):
        yield from block.splitlines()
    yield from SPAN.findall(FENCE.sub("", text))


def keys(node: Any, path: str = "") -> Iterator[str]:
    """Every dotted path of a params document, sections included; a list is one value."""
    for name, value in node.items():
        yield f"{path}{name}"
        if isinstance(value, dict):
            yield from keys(value, f"{path}{name}.")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(prose(page)))
    return {heading.replace(" ", "-") for heading in kept}


@every_page
def test_keys_and_metrics_exist(page: Path) -> None:
    document = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    known = {*keys(document), *known_metrics("serving", "shapes", load_params(PARAMS).evaluate.few_steps)}
    named = {match[1] for span in SPAN.findall(prose(page)) if (match := DOTTED.fullmatch(span))}
    checked = {name for name in named if name.split(".")[0] in (*document, *METRIC_ROOTS)}
    assert checked <= known


@every_page
def test_parameters_that_are_shown_are_accepted(page: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    for number, block in enumerate(YAML.findall(page.read_text(encoding="utf-8"))):
        shown = yaml.safe_load(block)
        # Pages on gates show lists of rules too.
        if isinstance(shown, dict):
            path = tmp_path / f"{number}.yaml"
            merged = document | {section: document[section] | values for section, values in shown.items()}
            path.write_text(yaml.safe_dump(merged), encoding="utf-8")
            load_params(path)


def test_every_parameter_is_explained() -> None:
    text = "\n".join(span for page in PAGES for span in SPAN.findall(prose(page)))
    document = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    leaves = {
        key for key in keys(document) if not any(other.startswith(f"{key}.") for other in keys(document))
    }
    # Roles are explained in a table of their own, and not as keys.
    leaves = {key for key in leaves if not key.startswith("finetune.shares.")}
    assert not {key for key in leaves if key not in text}


@every_page
def test_verbs_and_their_options_exist(page: Path) -> None:
    # Typer brings a click of its own, so a verb's options are looked up by name, not by class.
    verbs: dict[str, Any] = typer.main.get_group(app).commands
    for line in code(page):
        for verb, rest in VERB.findall(line):
            assert verb in verbs, line
            options = {name for parameter in verbs[verb].params for name in parameter.opts}
            # What follows a lone `--` is for another program.
            assert set(OPTION.findall(rest.split(" -- ")[0])) <= options | {"--help"}, line


@every_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(
        re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = {match[1] for line in code(page) if (match := re.match(r"make ([a-z]+)", line))}
    assert named <= targets


@every_page
def test_relative_links_resolve(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("https:", "http:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
