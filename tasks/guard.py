"""Runs one command in its own process group and ends the whole group when whoever started it is gone.

Started as `python -I -S guard.py <grace seconds> <command..>` with a pipe on standard input whose other end
only the starter holds. The pipe closes when the starter wants the command to end, and also when the starter
dies, even by SIGKILL. A parent-death signal would reach the direct child alone, and a trainer is a
great-grandchild (DVC starts it through a shell). Needs the standard library alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time


def end_group(group: int, grace: float) -> None:
    """Ask every process of a group to end, wait at most `grace` seconds, then kill what is left."""
    deadline = time.monotonic() + grace
    try:
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline:
            time.sleep(0.05)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def main() -> None:
    """Run the command of the command line and exit as it does (128 + n if signal n ended it)."""
    grace = float(sys.argv[1])
    child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, process_group=0)

    def watch() -> None:
        while os.read(0, 64):
            pass
        end_group(child.pid, grace)

    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    # What the command left behind in its group would keep the output pipe open and the starter waiting.
    end_group(child.pid, grace)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
