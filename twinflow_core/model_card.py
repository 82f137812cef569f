"""The model card of a published package: what it was made from, how, how good it is, how to draw with it.

It is told by content alone (no time, host, path or run), so that the same package published again is the same version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from twinflow_core.finetune_params import FinetuneParams

Interval = tuple[float, float]
# What neither the result nor its quality depends on.
UNTOLD = {"launch", "log_every", "checkpoint_every", "validate_every", "sample_every", "keep_last"}
FRONT_MATTER = "---"


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    Attributes:
        model: its name in the registry.
        family: as the package's manifest has it, e.g. "sd3".
        resolution: side of the images, in pixels.
        steps: the numbers of evaluations that the package draws with, ascending.
        data: `summary.json` of the prepared data.
        licence: of the base model, or None where its folder states none.
        lineage: hashes by name.
        options: the finetune section.
        metrics: `scorer`, `reference`, `candidate` by setting, `ratio`.
        intervals: of the candidate's scores by setting; those that are known.
        level: the confidence of these intervals.
        prompt: one to draw.
    """

    model: str
    family: str
    resolution: int
    steps: tuple[int, ...]
    data: Mapping[str, Any]
    licence: str | None
    lineage: Mapping[str, str]
    options: FinetuneParams
    metrics: Mapping[str, Any]
    intervals: Mapping[str, Interval]
    level: float
    prompt: str


def model_card(facts: CardFacts) -> str:
    """The card as Markdown; the same facts give the same text."""
    sections = (
        _title(facts),
        _base(facts),
        _data(facts),
        _training(facts),
        _metrics(facts),
        _sampling(facts),
    )
    return "\n\n".join(sections) + "\n"


def stated_licence(folder: Path) -> str | None:
    """The licence that a model's folder states: in its README's front matter, else its licence file's first line."""
    readme = folder / "README.md"
    lines = readme.read_text(encoding="utf-8").splitlines() if readme.is_file() else []
    if lines and lines[0] == FRONT_MATTER and FRONT_MATTER in lines[1:]:
        told = yaml.safe_load("\n".join(lines[1 : lines.index(FRONT_MATTER, 1)]))
        if isinstance(told, dict) and (named := told.get("license_name") or told.get("license")):
            return str(named)
    for path in sorted(folder.glob("LICEN[CS]E*")):
        stated = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if stated:
            return stated[0]
    return None


def _title(facts: CardFacts) -> str:
    steps = " or ".join(str(each) for each in facts.steps)
    return (
        f"# {facts.model}\n\nImages of {facts.resolution} pixels from text in {steps} evaluation(s) of the network, as "
        f"an ONNX package. Family {facts.family}."
    )


def _base(facts: CardFacts) -> str:
    licence = f"licence: {facts.licence}" if facts.licence else "its folder states no licence"
    hashes = "\n".join(f"| {name} | `{value}` |" for name, value in sorted(facts.lineage.items()))
    return (
        f"## Made from\n\nThe base model, {licence}. What it and the others were, by DVC's hashes:\n\n"
        f"| | |\n|---|---|\n{hashes}"
    )


def _data(facts: CardFacts) -> str:
    data = facts.data
    splits = ", ".join(f"{count:,} {name}" for name, count in data["splits"].items())
    refused = ", ".join(f"{count:,} {reason}" for reason, count in data["rejected"].items() if count)
    return (
        f"## Data\n\n{data['usable']:,} of {data['rows']:,} images: {splits}. Rejected: {refused or 'none'}. "
        f"{data['captions']['distinct']:,} different captions. Widths {_pixels(data['width'])}, "
        f"heights {_pixels(data['height'])}."
    )


def _pixels(sizes: Mapping[str, int]) -> str:
    return f"{sizes['min']} to {sizes['max']} pixels"


def _training(facts: CardFacts) -> str:
    told = facts.options.model_dump(mode="json", exclude=UNTOLD)
    settings = yaml.safe_dump({"finetune": told}, sort_keys=False, default_flow_style=None, width=100)
    return f"## Training\n\nObjective: {facts.options.objective}.\n\n```yaml\n{settings}```"


def _metrics(facts: CardFacts) -> str:
    rows = [_row(f"this model, {name}", found, facts.intervals.get(name)) for name, found in _settings(facts)]
    rows.append(_row("the base, many steps", facts.metrics["reference"], None))
    for size, there in facts.metrics.get("sizes", {}).items():
        rows += [_row(f"this model, {name}, {size}", each, None) for name, each in there["candidate"].items()]
        rows.append(_row(f"the base, many steps, {size}", there["reference"], None))
    table = "\n".join(rows)
    return (
        f"## Metrics\n\nScorer `{facts.metrics['scorer']}`, in torch before export. Intervals hold the truth with "
        f"{facts.level:.0%} confidence over other prompts.\n\n"
        f"| | score | interval | diversity |\n|---|---|---|---|\n{table}"
    )


def _settings(facts: CardFacts) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, found) for name, found in facts.metrics["candidate"].items() if isinstance(found, Mapping)]


def _row(name: str, found: Mapping[str, Any], interval: Interval | None) -> str:
    between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-"
    return f"| {name} | {_number(found.get('score'))} | {between} | {_number(found.get('diversity'))} |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _sampling(facts: CardFacts) -> str:
    runtime = "\n".join(
        f"images = generator.generate([{facts.prompt!r}], seed=0, steps={steps})" for steps in facts.steps
    )
    return (
        "## How to draw\n\nWith this package and the runtime it was tested with, without torch:\n\n```python\n"
        "from twinflow_core.runtime.generator import Generator\n\n"
        f'generator = Generator.from_folder("PACKAGE")\n{runtime}\n```\n\n'
        "With stock diffusers, from the candidate's folder that the package was exported from:\n\n```python\n"
        "from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline\n\n"
        "pipeline = StableDiffusion3Pipeline.from_pretrained(\n"
        '    "models/candidate", text_encoder_3=None, tokenizer_3=None\n)\n'
        "pipeline.scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)\n"
        f"for sigmas in ([1.0], [1.0, 0.5]):  # one step, two steps\n"
        f"    image = pipeline(\n        {facts.prompt!r}, num_inference_steps=len(sigmas), sigmas=sigmas, "
        "guidance_scale=0, max_sequence_length=1\n    ).images[0]\n```"
    )
