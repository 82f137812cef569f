"""What became of every row of the source: counts by reason and by split, sizes, and the rejected rows.

In memory are the counts, the first few rejected rows, and some 15 bytes for each different caption.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from twinflow_core.data.rejections import Reason, Rejection
from twinflow_core.data.shards import Row
from twinflow_core.data.splits import SPLITS, Split
from twinflow_core.errors import TwinflowError

REJECTED_SCHEMA = pa.schema(
    [("row", pa.int64()), ("file_name", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)
_SHOWN = 10
_ROWS_A_GROUP = 65_536


class DistinctTexts:
    """Counts different texts by 64 bits of their hashes: 8 bytes each, some 100 for the latest sixteenth.

    Among a million texts, two different ones are taken for equal with a chance of one in 30 million.
    """

    def __init__(self) -> None:
        self._known = np.empty(0, np.uint64)
        self._new: set[int] = set()

    def add(self, text: str) -> None:
        """Count a text unless it was counted before."""
        self._new.add(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))
        if len(self._new) >= max(_ROWS_A_GROUP, len(self._known) // 16):
            self._merge()

    def __len__(self) -> int:
        self._merge()
        return len(self._known)

    def _merge(self) -> None:
        new = np.fromiter(self._new, np.uint64, len(self._new))
        self._known = np.union1d(self._known, new)
        self._new = set()


class Summary:
    """Counts as rows come, and says at the end whether there is enough to go on with. Use as a context manager.

    Args:
        folder: where `rejected.parquet` is written as rows come, and `summary.json` by `write`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rejections = pq.ParquetWriter(folder / "rejected.parquet", REJECTED_SCHEMA, compression="zstd")
        self._waiting: list[dict[str, Any]] = []
        self._shown: list[dict[str, Any]] = []
        self._reasons: Counter[Reason] = Counter()
        self._splits: Counter[Split] = Counter()
        self._captions = DistinctTexts()
        self._longest_caption = 0
        self._widths: list[int] = []
        self._heights: list[int] = []
        self._bytes = 0

    def __enter__(self) -> Summary:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._rejections.close()

    @property
    def rejected(self) -> int:
        """How many rows were rejected so far."""
        return self._reasons.total()

    @property
    def usable(self) -> int:
        """How many rows were kept so far."""
        return self._splits.total()

    def reject(self, row: int, file_name: str, rejection: Rejection) -> None:
        """Note a row that cannot be used; `row` is its place in the sorted source."""
        self._reasons[rejection.reason] += 1
        entry = {
            "row": row,
            "file_name": file_name,
            "reason": str(rejection.reason),
            "detail": rejection.detail,
        }
        self._waiting.append(entry)
        if len(self._shown) < _SHOWN:
            self._shown.append(entry)
        if len(self._waiting) == _ROWS_A_GROUP:
            self._flush()

    def keep(self, row: Row, split: Split) -> None:
        """Note a row that is used."""
        self._splits[split] += 1
        self._captions.add(row.caption)
        self._longest_caption = max(self._longest_caption, len(row.caption))
        self._widths = _range([*self._widths, row.width])
        self._heights = _range([*self._heights, row.height])
        self._bytes += len(row.image)

    def demand_enough(self, max_rejected: float, source: str) -> None:
        """Stop when the data would not do.

        Args:
            max_rejected: the largest share of rows that may be rejected.
            source: what the user gave as `data.source`, for the message.

        Raises:
            TwinflowError: no row is usable, more than `max_rejected` are rejected, or a split is empty.
        """
        total = self.usable + self.rejected
        if self.usable == 0 or self.rejected > max_rejected * total:
            limit = "none is left" if self.usable == 0 else f"data.max_rejected allows {max_rejected:.0%}"
            raise TwinflowError(
                f"{self.rejected} of {total} rows were rejected; {limit}.",
                where=f"{source}\n{self._rejections_as_text()}",
                fix="Repair or remove these rows, or change the limits under `data` in params.yaml.",
            )
        for split in SPLITS:
            if self._splits[split] == 0:
                raise TwinflowError(
                    f"None of the {self.usable} usable images falls into the {split} split.",
                    where=source,
                    fix="Add images, or change data.validation in params.yaml.",
                )

    def write(self) -> None:
        """Write `summary.json`."""
        document = {
            "rows": self.usable + self.rejected,
            "usable": self.usable,
            "rejected": {str(reason): self._reasons[reason] for reason in Reason},
            "splits": {split: self._splits[split] for split in SPLITS},
            "captions": {"distinct": len(self._captions), "longest_characters": self._longest_caption},
            "width": {"min": self._widths[0], "max": self._widths[1]},
            "height": {"min": self._heights[0], "max": self._heights[1]},
            "image_bytes": self._bytes,
        }
        path = self._folder / "summary.json"
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    def _flush(self) -> None:
        self._rejections.write_table(pa.Table.from_pylist(self._waiting, schema=REJECTED_SCHEMA))
        self._waiting = []

    def _rejections_as_text(self) -> str:
        counts = ", ".join(f"{reason}: {count}" for reason, count in self._reasons.most_common())
        shown = [f"    {counts}"]
        for entry in self._shown:
            rejection = Rejection(Reason(entry["reason"]), entry["detail"])
            shown.append(f"    row {entry['row']}  {entry['file_name']}: {rejection}")
        if self.rejected > _SHOWN:
            shown.append(f"    ... and {self.rejected - _SHOWN} more")
        return "\n".join(shown)


def _range(values: list[int]) -> list[int]:
    """The smallest and the largest."""
    return [min(values), max(values)]
