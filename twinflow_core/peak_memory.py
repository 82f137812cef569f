"""The most memory that this process has held."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

# What getrusage counts in: bytes on macOS, kilobytes elsewhere.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def peak_bytes() -> int:
    """Its peak in bytes. Linux gives a child its parent's peak in `ru_maxrss`, so there it is read from /proc."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024
