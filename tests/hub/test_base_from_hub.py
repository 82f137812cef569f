"""The `base` stage against huggingface_hub's own client and a hub on loopback."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from tests.hub.hub_server import COMMIT, HubServer, Repository
from tests.pipeline_clone import REPOSITORY
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.cli.plan_verb import _own_base
from twinflow_core.errors import ExitCode, TwinflowError
from twinflow_core.params import Params, load_params
from twinflow_core.stages.base import OUTPUT, base

NAME = "owner/tiny"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def hub(tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with one model, which this process's client takes for the real one; no token, a fresh cache."""
    folder = shutil.copytree(tiny_pipeline, tmp_path / "repository")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "transformer/diffusion_pytorch_model.bin").write_bytes(b"pickled")
    (folder / "tiny.safetensors").write_bytes(b"of no use")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with HubServer({NAME: Repository(folder)}) as server:
        template = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def params(root: Path, hub: str = NAME, revision: str = COMMIT) -> Params:
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text())
    document["base"] |= {"hub": hub, "revision": revision}
    (root / "params.yaml").write_text(yaml.safe_dump(document))
    return load_params(root / "params.yaml")


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_model_of_the_hub_becomes_the_folder_that_it_is(hub: HubServer, root: Path) -> None:
    base(params(root), root)
    made, there = content(root / OUTPUT), content(hub.repositories[NAME].folder)
    assert made.keys() == there.keys() - {"transformer/diffusion_pytorch_model.bin", "tiny.safetensors"}
    assert made == {name: there[name] for name in made}
    load_backbone(root / OUTPUT)
    fetched = hub.fetched()
    assert fetched[0] == "model_index.json"
    # Equal content, as of two tokenizers, is fetched once.
    assert len(fetched) == len({made[name] for name in fetched}) == len(set(made.values()))


def test_rounded_weights_alone_are_fetched_and_load(hub: HubServer, root: Path) -> None:
    weights = hub.repositories[NAME].folder / WEIGHTS
    tensors = load_file(weights)
    weights.unlink()
    save_file({name: each.half() for name, each in tensors.items()}, weights.with_suffix(".fp16.safetensors"))
    base(params(root), root)
    made = load_file(root / OUTPUT / WEIGHTS)
    assert all(made[name].equal(each.half()) for name, each in tensors.items())
    load_backbone(root / OUTPUT)


def test_what_arrived_is_not_fetched_again_and_the_hub_may_go(hub: HubServer, root: Path) -> None:
    hub.cut = WEIGHTS
    base(params(root), root)
    assert hub.fetched().count(WEIGHTS) == 2
    first = content(root / OUTPUT)
    shutil.rmtree(root / OUTPUT)
    hub.stop()
    base(params(root), root)
    assert content(root / OUTPUT) == first


def test_a_run_that_ended_half_way_goes_on(hub: HubServer, root: Path) -> None:
    hub.damaged = WEIGHTS
    with pytest.raises(TwinflowError, match="not what the hub says") as caught:
        base(params(root), root)
    assert caught.value.code == ExitCode.INFRASTRUCTURE
    assert not (root / OUTPUT).exists()
    before = hub.fetched()
    hub.damaged = ""
    Path(caught.value.where).unlink()
    base(params(root), root)
    assert before
    assert not set(hub.fetched()[len(before) :]) & (set(before) - {WEIGHTS})


def test_the_family_is_told_before_any_weight_is_fetched(hub: HubServer, root: Path) -> None:
    index = hub.repositories[NAME].folder / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusion3Pipeline", "UnknownPipeline"))
    with pytest.raises(TwinflowError, match="UnknownPipeline are not supported") as caught:
        base(params(root), root)
    assert COMMIT in caught.value.where
    assert hub.fetched() == ["model_index.json"]


@pytest.mark.parametrize("revision", ["main", COMMIT[:7]])
def test_a_name_is_no_pin_and_the_error_says_what_it_stands_for(
    hub: HubServer, root: Path, revision: str
) -> None:
    with pytest.raises(TwinflowError, match="no full commit hash") as caught:
        base(params(root, revision=revision), root)
    assert COMMIT in caught.value.fix
    assert hub.fetched() == []
    hub.failing = 503
    with pytest.raises(TwinflowError, match="no full commit hash") as caught:
        base(params(root, revision=revision), root)
    assert caught.value.code == ExitCode.WRONG_INPUT
    assert "40 digits" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "revision", "says", "code"),
    [
        ("owner/gated", COMMIT, "gated", ExitCode.WRONG_INPUT),
        ("owner/private", COMMIT, "no such model", ExitCode.WRONG_INPUT),
        ("owner/absent", COMMIT, "no such model", ExitCode.WRONG_INPUT),
        ("a/b/c", COMMIT, "no name of a model", ExitCode.WRONG_INPUT),
        (NAME, COMMIT[::-1], "no such commit", ExitCode.WRONG_INPUT),
        ("owner/empty", COMMIT, "lacks a file of a diffusers pipeline", ExitCode.WRONG_INPUT),
    ],
)
def test_a_wrong_base_is_one_message(
    hub: HubServer, root: Path, tmp_path: Path, name: str, revision: str, says: str, code: ExitCode
) -> None:
    folder = hub.repositories[NAME].folder
    (tmp_path / "empty").mkdir()
    hub.repositories |= {
        "owner/gated": Repository(folder, gated=True),
        "owner/private": Repository(folder, private=True),
        "owner/empty": Repository(tmp_path / "empty"),
    }
    with pytest.raises(TwinflowError, match=says) as caught:
        base(params(root, name, revision), root)
    assert caught.value.code == code
    assert caught.value.fix
    assert not (root / OUTPUT).exists()


def test_a_hub_that_fails_or_is_out_of_reach_is_no_fault_of_the_input(
    hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.failing = 502
    with pytest.raises(TwinflowError, match="HTTP 502") as caught:
        base(params(root), root)
    assert caught.value.code == ExitCode.INFRASTRUCTURE
    hub.stop()
    with pytest.raises(TwinflowError, match="does not answer") as caught:
        base(params(root), root)
    assert caught.value.code == ExitCode.INFRASTRUCTURE


def test_a_hub_that_may_not_be_asked_is_a_matter_of_the_set_up(
    hub: HubServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TwinflowError, match="HF_HUB_OFFLINE") as caught:
        base(params(root), root)
    assert caught.value.code == ExitCode.WRONG_INPUT
    assert hub.requests == []


def test_the_token_opens_what_is_gated_is_sent_nowhere_else_and_written_nowhere(
    hub: HubServer, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = hub.repositories[NAME]
    repository.gated = repository.private = True
    monkeypatch.setenv("HF_TOKEN", hub.token)
    base(params(root), root)
    sent = {(host, token) for _, host, path, token in hub.requests if path.startswith("/large/")}
    assert sent == {("localhost", "")}
    assert {token for _, host, _, token in hub.requests if host == "127.0.0.1"} == {f"Bearer {hub.token}"}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert not [path for path in written if hub.token.encode() in path.read_bytes()]
    monkeypatch.setenv("HF_TOKEN", "wrong")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(TwinflowError) as caught:
        base(params(root), root)
    assert caught.value.code == ExitCode.WRONG_INPUT
    assert "wrong" not in str(caught.value)


def test_a_plan_for_a_model_of_the_hub_fetches_configurations_alone(hub: HubServer, root: Path) -> None:
    planned = _own_base(params(root).base, root)
    assert planned.name == f"{NAME} at {COMMIT[:12]}"
    assert planned.config["num_layers"] == 2
    assert [part.name for part in planned.parts] == ["text_encoder", "text_encoder_2", "vae"]
    fetched = [Path(name).name for name in hub.fetched()]
    assert sorted(fetched) == ["config.json"] * 4 + ["model_index.json"]
