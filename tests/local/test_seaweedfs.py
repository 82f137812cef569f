from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil

from twinflow_core.local.daemon import is_alive
from twinflow_core.local.embedded import Running
from twinflow_core.local.loopback import HOST
from twinflow_core.local.seaweedfs import seaweedfs_record, start_seaweedfs, stop_seaweedfs
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore

BUCKET = "twinflow"


def _store(connection: S3Connection) -> ObjectStore:
    return ObjectStore(make_s3_client(connection), BUCKET)


def test_it_listens_on_loopback_alone_and_keeps_its_keys_private(
    service_root: Path, s3_connection: S3Connection
) -> None:
    folder = service_root / ".twinflow" / "services"
    running = seaweedfs_record(folder)
    assert running is not None
    listening = psutil.Process(running.daemon.pid).net_connections(kind="inet")
    assert {entry.laddr.ip for entry in listening if entry.status == psutil.CONN_LISTEN} == {HOST}
    for private in (folder / "credentials.json", folder / "seaweedfs" / "s3.json"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
    command = " ".join(psutil.Process(running.daemon.pid).cmdline())
    assert s3_connection.secret_key not in command
    assert s3_connection.secret_key not in (folder / "seaweedfs" / "server.log").read_text()


def test_data_outlive_a_kill_and_a_lost_port(own_seaweedfs: Path) -> None:
    store = _store(start_seaweedfs(own_seaweedfs, BUCKET, print))
    blob = os.urandom(6 << 20)
    store.put("small", b"small")
    store.put("large", blob)
    killed = seaweedfs_record(own_seaweedfs)
    assert killed is not None
    os.kill(killed.daemon.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(killed.daemon.pid)], timeout=10)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind((HOST, killed.ports[0]))
        stranger.listen()
        store = _store(start_seaweedfs(own_seaweedfs, BUCKET, print))
    assert store.get("small") == b"small"
    assert store.get("large") == blob
    assert not store.put("small", b"other", if_absent=True)
    assert stop_seaweedfs(own_seaweedfs, print)
    assert not stop_seaweedfs(own_seaweedfs, print)


def test_two_that_start_it_at_once_get_the_same_server(own_seaweedfs: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from twinflow_core.local.seaweedfs import start_seaweedfs\n"
        f"print(start_seaweedfs(Path(sys.argv[1]), {BUCKET!r}, lambda line: print(line, file=sys.stderr)))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(own_seaweedfs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0][0] == answers[1][0]
    assert "".join(said for _, said in answers).count("Starting") == 1


def data_folder(running: Running) -> Path:
    """Where a running server writes, by what it was told and where it stands."""
    server = psutil.Process(running.daemon.pid)
    told = next(each for each in server.cmdline() if each.startswith("-dir="))
    return Path(server.cwd()) / told.removeprefix("-dir=")


def test_a_moved_folder_takes_its_server_along_and_a_copied_one_gets_its_own(tmp_path: Path) -> None:
    first, moved, copied = (tmp_path / name / "services" for name in ("first", "moved", "copied"))
    first.mkdir(parents=True)
    try:
        _store(start_seaweedfs(first, BUCKET, print)).put("kept", b"kept")
        before = seaweedfs_record(first)
        assert before is not None
        shutil.move(first.parent, moved.parent)
        assert data_folder(before) == moved / "seaweedfs/data", "it would write at the old place"
        store = _store(start_seaweedfs(moved, BUCKET, print))
        assert store.get("kept") == b"kept"
        store.put("new", os.urandom(3 << 20))
        assert not is_alive(before.daemon)

        # A copy holds the record of a server that is none of its own.
        (copied / "seaweedfs").mkdir(parents=True)
        shutil.copy(moved / "seaweedfs/process.json", copied / "seaweedfs")
        assert not stop_seaweedfs(copied, print)
        own = start_seaweedfs(copied, BUCKET, print)
        assert own.endpoint != store.endpoint
        assert store.get("kept") == b"kept"
    finally:
        for folder in (first, moved, copied):
            stop_seaweedfs(folder, print)
