"""Where a benchmark's figures end: printed, and as JSON in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def tell_result(result: Any, out: Path) -> None:
    """Print the figures and write them to `out`."""
    text = json.dumps(result, indent=2) + "\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(text, end="")
