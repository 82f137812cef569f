"""A manifest comes back as it was written; a damaged package is refused by name and place."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from twinflow_core.errors import TwinflowError
from twinflow_core.runtime.loaded_package import LoadedPackage
from twinflow_core.runtime.package import MANIFEST, read_manifest, verify_files

pytestmark = pytest.mark.slow


@pytest.fixture
def package(tiny_package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_package, tmp_path / "package"))


def rewrite(package: Path, **changes: object) -> None:
    document = json.loads((package / MANIFEST).read_text())
    (package / MANIFEST).write_text(json.dumps({**document, **changes}))


def test_the_manifest_survives_a_round_trip(package: Path) -> None:
    before = (package / MANIFEST).read_bytes()
    read_manifest(package).write(package)
    assert (package / MANIFEST).read_bytes() == before


def test_the_texts_precision_is_told_where_it_is_not_full(package: Path) -> None:
    assert "text_precision" not in json.loads((package / MANIFEST).read_text())
    replace(read_manifest(package), text_precision="int8").write(package)
    assert read_manifest(package).text_precision == "int8"


def test_the_manifest_describes_the_package(package: Path) -> None:
    manifest = read_manifest(package)
    assert manifest.nfe == [1, 2]
    assert manifest.times == {"1": (1.0,), "2": (1.0, 0.5)}
    assert manifest.latent_shape == (4, 8, 8)
    assert manifest.resolution == 32
    assert (manifest.format, manifest.size_names) == (3, ["32x32"])
    noises, embeds, pooled = manifest.generators["2"].inputs
    assert (noises.name, noises.dtype, noises.shape) == ("noises", "float", (2, "batch", 4, 8, 8))
    assert (embeds.name, pooled.name) == ("prompt_embeds", "pooled_prompt_embeds")
    assert manifest.generators["2"].outputs[0].shape == ("batch", 3, 32, 32)
    assert manifest.text is not None
    assert [spec.name for spec in manifest.text.inputs] == ["input_ids", "input_ids_2"]


def test_every_file_is_recorded(package: Path) -> None:
    there = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert set(read_manifest(package).files) == there - {MANIFEST}


def test_all_damage_is_named_at_once(package: Path) -> None:
    (package / "text.onnx").unlink()
    weights = package / "transformer/model.onnx_data"
    weights.write_bytes(weights.read_bytes()[:-1])
    decoder = package / "vae_decoder/model.onnx_data"
    content = bytearray(decoder.read_bytes())
    content[100] ^= 1
    decoder.write_bytes(content)
    with pytest.raises(TwinflowError) as caught:
        LoadedPackage.from_folder(package)
    message = str(caught.value)
    assert "text.onnx is missing" in message
    assert "transformer/model.onnx_data has" in message
    assert "vae_decoder/model.onnx_data was changed" in message


def test_a_sound_package_passes(package: Path) -> None:
    verify_files(package, read_manifest(package))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"format": 1}'])
def test_a_damaged_manifest_is_refused(package: Path, content: str) -> None:
    (package / MANIFEST).write_text(content)
    with pytest.raises(TwinflowError, match="manifest is damaged"):
        read_manifest(package)


def test_a_newer_format_is_refused(package: Path) -> None:
    rewrite(package, format=4)
    with pytest.raises(TwinflowError, match="has format 4"):
        read_manifest(package)


OLD_TOKENIZERS = ["tokenizer/tokenizer.json", "tokenizer_2/tokenizer.json"]


def test_the_second_format_is_still_read(package: Path) -> None:
    known = read_manifest(package)
    rewrite(package, format=2, tokenizers=OLD_TOKENIZERS)
    assert read_manifest(package).tokenizers == known.tokenizers


def test_the_first_format_is_still_read(package: Path) -> None:
    known = read_manifest(package)
    document = json.loads((package / MANIFEST).read_text())
    old = {key: value for key, value in document.items() if key not in ("sampler", "noise", "provenance")}
    more = {"vae": {"scaling_factor": 1.5}, "default_negative": None, "tokenizers": OLD_TOKENIZERS}
    rewritten = {**old, "format": 1, **more}
    (package / MANIFEST).write_text(json.dumps(rewritten))
    assert read_manifest(package).generators == known.generators
    assert len(LoadedPackage.from_folder(package, "cpu").generate(["a red circle"])) == 1


def test_the_manifest_says_what_it_was_made_of(package: Path) -> None:
    manifest = read_manifest(package)
    assert "x_t - t F(x_t, t, 0)" in manifest.sampler
    assert "Philox" in manifest.noise
    assert manifest.provenance["pipeline"] == "StableDiffusion3Pipeline"
    assert len(manifest.provenance["denoiser_sha256"]) == 64
    assert {"torch", "diffusers", "onnxscript"} <= set(manifest.provenance)


def test_a_folder_without_a_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TwinflowError, match="no exported package"):
        LoadedPackage.from_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["text.onnx", "tokenizer/tokenizer.json"])
def test_an_unreadable_file_is_one_message_even_without_verification(package: Path, name: str) -> None:
    (package / name).write_bytes(b"not what it should be")
    with pytest.raises(TwinflowError, match="cannot"):
        LoadedPackage.from_folder(package, verify=False)
