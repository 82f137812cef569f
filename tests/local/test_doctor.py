from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from twinflow_core.local.accelerators import check_onnxruntime, check_torch
from twinflow_core.local.doctor import check_dvc, check_git, check_s3, examine
from twinflow_core.local.finding import ask, ask_python
from twinflow_core.local.services import Services

REPOSITORY = Path(__file__).parents[2]


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_a_sound_checkout_has_nothing_wrong(service_root: Path, services: Services) -> None:
    _git(service_root, "init")
    _git(service_root, "commit", "--allow-empty", "-m", "first")
    findings = {finding.name: finding for finding in examine(service_root)}
    assert [name for name, finding in findings.items() if finding.state == "wrong"] == []
    assert list(findings) == [
        "Python",
        "git",
        "params.yaml",
        "disk",
        "DVC",
        "S3",
        "Prefect",
        "torch",
        "ONNX Runtime",
    ]
    assert "exactly one won" in findings["S3"].found
    assert services.prefect_api_url in findings["Prefect"].found


def test_everything_wrong_at_once_is_said_with_what_to_do(
    tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text((REPOSITORY / "params.yaml").read_text().replace("batch_size", "batchsize"))
    monkeypatch.setenv("PREFECT_API_URL", "http://someone:pass-word@127.0.0.1:1/api")
    findings = {finding.name: finding for finding in examine(tmp_path)}
    assert "git init" in findings["git"].fix
    assert "`encode.batchsize`" in findings["params.yaml"].found
    assert "batch_size" in findings["params.yaml"].fix
    assert "does not answer" in findings["Prefect"].found
    assert "PREFECT_API_URL" in findings["Prefect"].fix
    assert all(finding.state == "wrong" for finding in findings.values() if finding.fix)
    assert "pass-word" not in str(findings)


def test_services_that_are_not_started_are_no_fault(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    finding = check_s3(tmp_path)
    assert finding.state == "note"
    assert "twinflow up" in finding.found


def test_git_without_a_commit(tmp_path: Path) -> None:
    _git(tmp_path, "init")
    assert check_git(tmp_path).fix == "Make a first commit."


def test_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_git(tmp_path).fix == "Install git."


@pytest.mark.parametrize(("verify", "state"), [("", "note"), ("    verify = true\n", "ok")])
def test_a_remote_that_is_not_checked_is_noted(tmp_path: Path, verify: str, state: str) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(
        f"[core]\n    remote = ours\n['remote \"ours\"']\n    url = s3://bucket/dvc\n{verify}"
    )
    _git(tmp_path, "init")
    finding = check_dvc(tmp_path)
    assert (finding.state, "s3://bucket/dvc" in finding.found) == (state, True)


def test_a_gpu_that_is_not_used_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch, _ = ask_python(["-m", "twinflow_core.local.accelerators", "torch"], tmp_path)
    assert torch is not None
    if torch["device"]:
        pytest.skip("this machine's GPU is used")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho Some GPU\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for finding in (check_torch(tmp_path), check_onnxruntime(tmp_path)):
        assert finding.state == "note"
        assert "Some GPU" in finding.found
        assert finding.fix


def test_a_program_that_is_missing_or_fails_is_an_answer(tmp_path: Path) -> None:
    assert ask(["no-such-program"], tmp_path).code == 127
    document, answer = ask_python(["-c", "raise SystemExit('broken')"], tmp_path)
    assert document is None
    assert answer.last_error == "broken"
