"""The `twinflow` command. Every verb imports what it needs when it runs, so that `--help` is quick."""

from twinflow_core.cli.app import main

__all__ = ["main"]
