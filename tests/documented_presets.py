"""The presets that a page of docs/ shows: a heading with the name, then the section of params.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]


def documented_presets(page: str) -> dict[str, dict[str, Any]]:
    """The finetune values of every preset by its name."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    shown = re.findall(r"^### `([a-z0-9.-]+)`.*?```yaml\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    return {name: yaml.safe_load(block)["finetune"] for name, block in shown}
