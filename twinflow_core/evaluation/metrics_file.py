"""The metrics documents as JSON that every reader takes: a number that could not be had is null, never NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def write_metrics(document: dict[str, Any], path: Path) -> None:
    """Write a document of metrics; the same document gives the same bytes. NaN and infinities become null."""
    text = json.dumps(_without_nan(document), indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _without_nan(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_nan(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_without_nan(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node
