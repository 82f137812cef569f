"""The runtime reads text as transformers does, and draws the same picture however it is batched."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.noise import image_noise
from twinflow_core.runtime.loaded_package import LoadedPackage, PromptEmbeddings
from twinflow_core.runtime.package import MANIFEST
from twinflow_core.sampling.few_step import sample_few_steps

pytestmark = pytest.mark.slow

PROMPTS = ["a red circle", "two blue squares", "", "unseen wörds ☆", "a green triangle left of a red square"]


@pytest.fixture(scope="module")
def generator(tiny_package: Path) -> LoadedPackage:
    return LoadedPackage.from_folder(tiny_package, "cpu")


@pytest.fixture(scope="module")
def tokenizers(tiny_package: Path, tiny_pipeline: Path) -> tuple[Tokenizer, CLIPTokenizer]:
    exported = Tokenizer.from_file(str(tiny_package / "tokenizer/tokenizer.json"))
    return exported, CLIPTokenizer.from_pretrained(tiny_pipeline / "tokenizer")


ODD = (
    "<|endoftext|>",
    "<|startoftext|> a",
    "A RED Circle",
    "don't we'll",
    " \t\n ",
    "e\u0301 é",
    "\u0000",
    "word " * 99,
)


@given(text=st.one_of(st.text(max_size=80), st.sampled_from(ODD), st.text("ab '<|>ß", max_size=60)))
@settings(max_examples=300, deadline=None)
def test_ids_equal_those_of_transformers(tokenizers: tuple[Tokenizer, CLIPTokenizer], text: str) -> None:
    exported, original = tokenizers
    expected = original(text, padding="max_length", max_length=original.model_max_length, truncation=True)
    assert exported.encode(text).ids == expected.input_ids


@pytest.mark.parametrize("steps", [1, 2])
def test_images_are_torchs(generator: LoadedPackage, tiny_pipeline: Path, steps: int) -> None:
    backbone = load_backbone(tiny_pipeline)
    conditioning = backbone.encode_prompts(PROMPTS)
    noises = [image_noise(5, str(row), steps, backbone.latent_shape) for row in range(len(PROMPTS))]
    latents = sample_few_steps(
        lambda x_t, t, r: backbone.velocity(x_t, t, r, conditioning),
        torch.from_numpy(np.stack(noises, axis=1)),
    )
    expected = (backbone.decode_latents(latents) * 255).round().permute(0, 2, 3, 1).numpy()
    images = generator.generate(PROMPTS, seed=5, steps=steps)
    assert images.dtype == np.uint8
    assert images.shape == (5, 32, 32, 3)
    assert np.abs(images.astype(int) - expected).max() <= 1


def test_the_batch_size_changes_no_picture(generator: LoadedPackage) -> None:
    drawn = [
        generator.generate(PROMPTS, seed=3, steps=2, batch_size=size).astype(int) for size in (1, 2, 3, 16)
    ]
    for one, other in itertools.pairwise(drawn):
        assert np.abs(one - other).max() <= 1


def test_the_seed_changes_every_picture(generator: LoadedPackage) -> None:
    first, again, other = (generator.generate(PROMPTS, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert all((a != b).any() for a, b in zip(first, other, strict=True))


def test_no_prompts_give_no_images(generator: LoadedPackage) -> None:
    assert generator.generate([]).shape == (0, 32, 32, 3)


def test_unknown_steps_name_those_there_are(generator: LoadedPackage) -> None:
    with pytest.raises(TwinflowError, match="in 3 step") as caught:
        generator.generate(["a red circle"], steps=3)
    assert "1, 2" in caught.value.fix


def test_a_failing_run_is_one_message(generator: LoadedPackage) -> None:
    wrong = np.zeros((1, 1, 4, 9, 9), np.float32)
    with pytest.raises(InfrastructureError, match="failed to run"):
        generator.render(wrong, generator.encode([""]))


def test_loading_and_generating_print_nothing(tiny_package: Path, capfd: pytest.CaptureFixture[str]) -> None:
    LoadedPackage.from_folder(tiny_package).generate(["a red circle"])
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_a_package_without_text_says_so_and_draws_from_embeddings(tiny_package: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    shutil.copytree(tiny_package, silent)
    manifest = json.loads((silent / MANIFEST).read_text(encoding="utf-8"))
    (silent / MANIFEST).write_text(json.dumps({**manifest, "text": None, "tokenizers": []}), encoding="utf-8")
    package, whole = (LoadedPackage.from_folder(folder, "cpu") for folder in (silent, tiny_package))
    package.warm_up(2)
    with pytest.raises(TwinflowError, match="takes prompt embeddings, not texts"):
        package.generate(["a red circle"])
    noises = np.random.default_rng(0).standard_normal((2, 1, *package.manifest.latent_shape), np.float32)
    embeddings = whole.encode(["a red circle", ""])
    np.testing.assert_array_equal(package.render(noises, embeddings), whole.render(noises, embeddings))


def test_fewer_tokens_are_filled_up_where_a_mask_tells() -> None:
    masked = PromptEmbeddings(
        {"prompt_embeds": np.ones((2, 3, 4), np.float32), "prompt_mask": np.ones((2, 3), bool)}
    )
    filled = masked.filled_up(5)
    assert filled.parts["prompt_embeds"].shape == (2, 5, 4)
    assert filled.parts["prompt_mask"].tolist() == [[True] * 3 + [False] * 2] * 2
    with pytest.raises(ValueError, match="3 tokens, where the graph takes 5"):
        PromptEmbeddings({"prompt_embeds": np.ones((2, 3, 4), np.float32)}).filled_up(5)
    with pytest.raises(ValueError, match="3 tokens"):
        masked.filled_up(2)
