"""How fast a training goes on this machine: shown while it runs, kept beside its state, never in a stage's output."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

FILE = "speed.json"


class Speed:
    """Rows a second since the first step of this process.

    Args:
        device: whose peak memory is read, where it has its own.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rows = 0
        self.started = time.perf_counter()
        self.noted_rows, self.noted_at = 0, self.started
        self.series: list[dict[str, float]] = []
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def add(self, rows: int) -> float:
        """Count the rows of a step and return the rows a second so far."""
        self.rows += rows
        return self.images_per_second

    @property
    def images_per_second(self) -> float:
        """Rows trained on a second."""
        return self.rows / (time.perf_counter() - self.started)

    def note(self, step: int) -> None:
        """Put the rows a second since the last note, or the first step, down for these finished steps."""
        now = time.perf_counter()
        rate = (self.rows - self.noted_rows) / (now - self.noted_at)
        self.series.append({"step": step, "images_per_second": round(rate, 2)})
        self.noted_rows, self.noted_at = self.rows, now

    def write(self, folder: Path) -> None:
        """Leave `speed.json`: device, images a second, in all and as noted, and peak bytes where it counts them.

        A process that found nothing left to train measured nothing, and leaves what there is.
        """
        if not self.rows:
            return
        document: dict[str, object] = {
            "device": self.device.type,
            "images_per_second": round(self.images_per_second, 2),
            "series": self.series,
        }
        if self.device.type == "cuda":
            document["peak_memory_bytes"] = torch.cuda.max_memory_allocated(self.device)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
