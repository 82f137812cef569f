"""Models from a hostile hand: one message, and none of their code is run, none of their weights made up."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from twinflow_core.backbones.loading import FAMILIES, load_backbone
from twinflow_core.backbones.supported import SUPPORTED, pipeline_class
from twinflow_core.errors import ExitCode, TwinflowError
from twinflow_core.training.checkpoint import FILE, load_state, save_state

REPOSITORY = Path(__file__).parents[2]
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
WEIGHTS = (TRANSFORMER, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
TRAP = "taken"


class Trap:
    """What a hostile pickle holds: it leaves a file where it is loaded."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.mkdir, (TRAP,))


@pytest.fixture
def model(tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil; the working folder is where a trap would leave its mark."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(tiny_pipeline, tmp_path / "model")


def edit(path: Path, **changed: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def pickled(folder: Path) -> None:
    (folder / TRANSFORMER).unlink()
    (folder / TRANSFORMER).with_suffix(".bin").write_bytes(pickle.dumps(Trap()))


def custom_component(folder: Path) -> None:
    edit(folder / "model_index.json", transformer=["trap", "Trap"])
    (folder / "transformer/trap.py").write_text(f"import os\nos.mkdir({TRAP!r})\n")


def remote_code(folder: Path) -> None:
    edit(folder / "text_encoder/config.json", auto_map={"AutoModel": "trap.Trap"})
    (folder / "text_encoder/trap.py").write_text(f"import os\nos.mkdir({TRAP!r})\n")


def foreign_library(folder: Path) -> None:
    edit(folder / "model_index.json", tokenizer=["os", "mkdir"])


def lying_length(folder: Path) -> None:
    (folder / TRANSFORMER).write_bytes(
        (1 << 62).to_bytes(8, "little") + (folder / TRANSFORMER).read_bytes()[8:]
    )


def lying_offsets(folder: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (folder / TRANSFORMER).write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)


def truncated(folder: Path) -> None:
    (folder / TRANSFORMER).write_bytes((folder / TRANSFORMER).read_bytes()[:-100])


def other_shape(folder: Path) -> None:
    tensors = load_file(folder / TRANSFORMER)
    save_file({**tensors, min(tensors): torch.zeros(3)}, folder / TRANSFORMER)


def bottomless_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("[" * 5000)


def class_as_list(folder: Path) -> None:
    edit(folder / "model_index.json", _class_name=["a", "b"])


def config_of_other_types(folder: Path) -> None:
    edit(folder / "transformer/config.json", num_layers="many")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (pickled, "pickled"),
        (custom_component, "comes from 'trap'"),
        (remote_code, "holds code"),
        (foreign_library, "comes from 'os'"),
        (lying_length, "damaged"),
        (lying_offsets, "damaged"),
        (truncated, "damaged"),
        (other_shape, "cannot be loaded"),
        (bottomless_index, "no diffusers pipeline"),
        (class_as_list, "no diffusers pipeline"),
        (config_of_other_types, "cannot be loaded"),
    ],
)
def test_a_hostile_folder_is_refused_with_a_message_and_nothing_of_it_runs(
    model: Path, tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    spoil(model)
    with pytest.raises(TwinflowError, match=says) as caught:
        load_backbone(model)
    assert caught.value.code == ExitCode.WRONG_INPUT
    assert str(model) in caught.value.where
    assert not (tmp_path / TRAP).exists()


@pytest.mark.parametrize("file", WEIGHTS)
def test_a_missing_weight_is_never_filled_in(model: Path, file: str) -> None:
    tensors = load_file(model / file)
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, model / file)
    with pytest.raises(TwinflowError, match="lacks 1 weight"):
        load_backbone(model)


def test_a_pickle_beside_safetensors_is_left_alone(model: Path, tmp_path: Path) -> None:
    (model / TRANSFORMER).with_suffix(".bin").write_bytes(pickle.dumps(Trap()))
    load_backbone(model)
    assert not (tmp_path / TRAP).exists()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40), st.integers(0, 60))
def test_any_bytes_in_a_header_are_one_message(model: Path, content: bytes, place: int) -> None:
    right = (model / TRANSFORMER).read_bytes()
    (model / TRANSFORMER).write_bytes(right[:place] + content + right[place + len(content) :])
    with suppress(TwinflowError):
        assert pipeline_class(model) == "StableDiffusion3Pipeline"
    (model / TRANSFORMER).write_bytes(right)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half an archive", pickle.dumps(Trap())])
def test_a_damaged_or_hostile_training_state_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(TwinflowError, match="training state cannot be read") as caught:
        load_state(tmp_path, "key")
    assert str(tmp_path / FILE) in caught.value.where
    assert not (tmp_path / TRAP).exists()
    save_state(tmp_path, "key", 3, {"log": []})
    assert load_state(tmp_path, "key") == (3, {"log": []})


def test_every_loading_in_the_code_refuses_pickles() -> None:
    asked = {"torch.load": "weights_only", "from_pretrained": "use_safetensors"}
    met = set()
    for path in (REPOSITORY / "twinflow_core").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = ast.unparse(call.func)
            for ending, keyword in asked.items():
                if name == ending or name.endswith(f".{ending}"):
                    met.add(ending)
                    given_values = {each.arg: ast.unparse(each.value) for each in call.keywords}
                    assert given_values.get(keyword) == "True", f"{path}: {name}"
            assert name not in {"pickle.load", "pickle.loads", "joblib.load", "torch.jit.load"}, path
            assert "allow_pickle" not in {each.arg for each in call.keywords}, path
    assert met == set(asked)


def test_what_is_said_to_be_supported_has_a_backbone() -> None:
    assert tuple(sorted(FAMILIES)) == SUPPORTED
