"""What is wrong with the set-up of a checkout, and what to do about it. Starts and changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twinflow_core.errors import TwinflowError
from twinflow_core.home import state_home
from twinflow_core.local.accelerators import check_onnxruntime, check_torch
from twinflow_core.local.finding import Finding, ask, ask_python
from twinflow_core.local.services import PREFECT_VARIABLE, running_prefect, running_store
from twinflow_core.params import PARAMS_FILE, load_params
from twinflow_core.registry.conditional_writes import probe_conditional_writes
from twinflow_core.registry.faults import AccessDenied

OLDEST_PYTHON = (3, 11)
# The default job writes about 1 GiB; the rest is room for a second run and the services.
LEAST_FREE_BYTES = 4 << 30
NOT_STARTED = "not started; any run, or `twinflow up`, starts it"

_ASK_PREFECT = """
import json
from prefect import __version__
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    fault = client.api_healthcheck()
    print(json.dumps({"client": __version__, "fault": str(fault or "")}))
"""


def examine(root: Path) -> list[Finding]:
    """Look at everything that a run needs, all at once.

    Args:
        root: the repository's root.

    Returns:
        One finding a thing, in a fixed order.
    """
    checks = {
        "Python": check_python,
        "git": check_git,
        "params.yaml": check_params,
        "disk": check_disk,
        "DVC": check_dvc,
        "S3": check_s3,
        "Prefect": check_prefect,
        "torch": check_torch,
        "ONNX Runtime": check_onnxruntime,
    }
    with ThreadPoolExecutor(len(checks)) as pool:
        return list(pool.map(lambda name: _explained(name, checks[name], root), checks))


def check_python(root: Path) -> Finding:
    """The interpreter's version."""
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("Python", "wrong", found, "Use Python 3.11 or newer.")
    return Finding("Python", "ok", found)


def check_git(root: Path) -> Finding:
    """Whether git is there and the root is a repository with a commit, from which runs make theirs."""
    version = ask(["git", "--version"], root)
    if version.code != 0:
        return Finding("git", "wrong", "git is not installed", "Install git.")
    head = ask(["git", "rev-parse", "--short", "HEAD"], root)
    if head.code == 0:
        return Finding("git", "ok", f"{version.output.strip()}, at {head.output.strip()}")
    fixes = {
        "dubious ownership": f"Run: git config --global --add safe.directory {root}",
        "not a git repository": "Clone the repository instead of copying its files, or run: git init",
    }
    fix = next((fix for fault, fix in fixes.items() if fault in head.errors), "Make a first commit.")
    return Finding("git", "wrong", head.last_error, fix)


def check_params(root: Path) -> Finding:
    """Whether params.yaml is valid."""
    load_params(root / PARAMS_FILE)
    return Finding("params.yaml", "ok", "valid")


def check_disk(root: Path) -> Finding:
    """Free space where state, cache and embedded services write."""
    home = state_home(root)
    free = shutil.disk_usage(home).free
    found = f"{free / 2**30:.1f} GiB free at {home}"
    if free < LEAST_FREE_BYTES:
        return Finding(
            "disk", "wrong", found, f"Free space up to {LEAST_FREE_BYTES >> 30} GiB, or set TWINFLOW_HOME."
        )
    return Finding("disk", "ok", found)


def check_dvc(root: Path) -> Finding:
    """Whether DVC runs here, and whether a remote of the user's own is checked on every read."""
    version = ask([sys.executable, "-m", "dvc", "--version"], root)
    if version.code != 0:
        return Finding("DVC", "wrong", version.last_error, "Install requirements.lock into this environment.")
    found = f"DVC {version.output.strip()}"
    settings = ask([sys.executable, "-m", "dvc", "config", "--list"], root)
    if settings.code != 0:
        return Finding("DVC", "wrong", f"{found}: {settings.last_error}", "Run: dvc init")
    known = dict(line.split("=", 1) for line in settings.output.splitlines() if "=" in line)
    remote = known.get("core.remote")
    if remote is None:
        return Finding("DVC", "ok", f"{found}; runs push to the bucket and check what they pull")
    place = f"{found}, remote {remote} at {known.get(f'remote.{remote}.url', 'no address')}"
    if known.get(f"remote.{remote}.verify", "").lower() != "true":
        return Finding(
            "DVC",
            "note",
            f"{place}, which is not checked: damaged files would pass unnoticed",
            f"Run: dvc remote modify {remote} verify true",
        )
    return Finding("DVC", "ok", f"{place}, checked on every read")


def check_s3(root: Path) -> Finding:
    """Whether the bucket can be reached, written, and trusted with a registry."""
    store = running_store(root)
    if store is None:
        return Finding("S3", "note", NOT_STARTED)
    store.ensure_bucket(create=False)
    place = f"{store.address('')} at {store.endpoint}"
    try:
        found = probe_conditional_writes(store)
    except AccessDenied:
        return Finding("S3", "note", f"{place}; this identity may not approve, promote, hold or roll back")
    if not found.work:
        return Finding(
            "S3",
            "wrong",
            f"{place} cannot hold a registry: {found.reason}",
            "Use a server with working If-None-Match: AWS S3, Cloudflare R2, SeaweedFS 4.17 or newer.",
        )
    return Finding("S3", "ok", f"{place}; conditional writes work: {found.reason}")


def check_prefect(root: Path) -> Finding:
    """Whether Prefect's client reaches the server that runs would use."""
    api_url, home = running_prefect(root)
    if api_url is None:
        return Finding("Prefect", "note", NOT_STARTED)
    settings = {"PREFECT_HOME": str(home)} if home else {}
    found, answer = ask_python(
        ["-c", _ASK_PREFECT], root, {**os.environ, **settings, PREFECT_VARIABLE: api_url}
    )
    if found is None:
        fix = "Install requirements.lock into this environment."
        return Finding("Prefect", "wrong", answer.last_error, fix)
    if found["fault"]:
        place = _without_credentials(api_url)
        fix = f"Start it, correct {PREFECT_VARIABLE}, or unset it to use the embedded server."
        return Finding("Prefect", "wrong", f"{place} does not answer: {found['fault']}", fix)
    return Finding("Prefect", "ok", f"client {found['client']} reaches {_without_credentials(api_url)}")


def _without_credentials(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)


def _explained(name: str, check: Callable[[Path], Finding], root: Path) -> Finding:
    try:
        return check(root)
    except TwinflowError as error:
        return Finding(name, "wrong", f"{error.what} ({error.where})", error.fix)
