"""What cannot be served is told before anything listens for long."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from twinflow_core.cli.serving_verbs import serve_model
from twinflow_core.errors import TwinflowError


def test_a_folder_without_a_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TwinflowError, match="no exported package"):
        serve_model(folder=tmp_path, port=0)


def test_a_taken_port_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(TwinflowError, match="cannot listen"):
        serve_model(folder=tmp_path, port=taken.getsockname()[1])


def test_outside_a_clone_the_server_must_be_named() -> None:
    with pytest.raises(TwinflowError, match="No S3 server is named"):
        serve_model(model="shapes", port=0)
