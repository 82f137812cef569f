"""base, encode, finetune, reference and evaluate, one after the other on a tiny real pipeline."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file

from twinflow_core.data.decode import decode_rgb, fit
from twinflow_core.data.shards import count_rows, read_rows
from twinflow_core.encoding.shard import to_signed
from twinflow_core.errors import TwinflowError
from twinflow_core.evaluation.samples import read_samples, samples_at
from twinflow_core.evaluation.second_look import evaluate_more
from twinflow_core.evaluation.served import images_to_draw
from twinflow_core.params import Params, load_params
from twinflow_core.stages.base import base
from twinflow_core.stages.encode import encode
from twinflow_core.stages.evaluate import evaluate
from twinflow_core.stages.finetune import finetune
from twinflow_core.stages.prepare import prepare
from twinflow_core.stages.raw import raw
from twinflow_core.stages.reference import reference
from twinflow_core.training.encoded import EncodedData

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
WIDE = "64x32"
STAGES = (raw, prepare, base, encode, reference, finetune, evaluate)


@pytest.fixture(scope="module")
def params(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Params:
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text())
    document["base"]["folder"] = str(tiny_pipeline)
    document["data"]["source"] = str(REPOSITORY / "tests/tiny_shapes")
    document["export"]["sizes"] = [WIDE]
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_params(path)


def run_all(params: Params, root: Path) -> Path:
    root.mkdir(exist_ok=True)
    for stage in STAGES:
        stage(params, root)
    return root


@pytest.fixture(scope="module")
def line(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_all(params, tmp_path_factory.mktemp("line"))


def metrics_of(root: Path, model: str = "candidate") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / f"eval/{model}/metrics.json").read_text())
    return found


def hashes(root: Path) -> dict[str, str]:
    folders = ("data/encoded", "models/candidate", "eval/reference", "eval/candidate")
    files = [path for folder in folders for path in sorted((root / folder).rglob("*")) if path.is_file()]
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def test_the_same_inputs_give_the_same_bytes(params: Params, line: Path, tmp_path: Path) -> None:
    assert hashes(run_all(params, tmp_path / "again")) == hashes(line)


def test_every_prepared_row_is_encoded_with_its_caption(line: Path) -> None:
    for split in ("train", "validation"):
        shards = sorted((line / "data/encoded").glob(f"{split}-*.json"))
        captions = [text for shard in shards for text in json.loads(shard.read_text())]
        assert captions[0] == ""
        data = EncodedData.load(line / "data/encoded", split)
        assert len(data) == count_rows(line / "data/prepared", split)
        texts = [row.caption for row in read_rows(line / "data/prepared", split)]
        assert [captions[number] for number in data.caption] == texts


def test_latents_and_embeddings_are_what_the_stock_pipeline_makes(line: Path) -> None:
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        line / "models/base", text_encoder_3=None, tokenizer_3=None
    )
    row = next(read_rows(line / "data/prepared", "train"))
    image = to_signed(fit(decode_rgb(row.image), 32, 32)[None])
    with torch.no_grad():
        latent = pipeline.vae.encode(image).latent_dist.mode()
    expected = (latent - pipeline.vae.config.shift_factor) * pipeline.vae.config.scaling_factor
    data = EncodedData.load(line / "data/encoded", "train")
    assert float((data.latents[:1] - expected).abs().max()) < 1e-4
    with torch.no_grad():
        embeds, _, pooled, _ = pipeline.encode_prompt(
            row.caption, None, None, do_classifier_free_guidance=False, max_sequence_length=1
        )
    found = data.conditioning[data.caption[:1]]
    assert float((found.prompt_embeds - embeds).abs().max()) < 1e-5
    assert float((found.pooled - pooled).abs().max()) < 1e-5


def test_the_candidate_is_a_stock_pipeline_with_changed_weights(line: Path) -> None:
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        line / "models/candidate", text_encoder_3=None, tokenizer_3=None
    )
    image = pipeline("a red circle", num_inference_steps=1, guidance_scale=0.0, max_sequence_length=1)
    assert image.images[0].size == (32, 32)
    name = "transformer/diffusion_pytorch_model.safetensors"
    before, after = load_file(line / "models/base" / name), load_file(line / "models/candidate" / name)
    assert before.keys() == after.keys()
    assert any(not before[key].equal(after[key]) for key in before)


def test_a_low_rank_candidate_on_a_quantised_base_is_the_base_on_disk_and_its_adapter(
    params: Params, line: Path, tmp_path: Path
) -> None:
    few_bits: dict[str, Any] = {"lora_rank": 2, "quantized_base": "nf4", "weights": "bfloat16"}
    options = params.finetune.model_copy(update=few_bits | {"steps": 2, "objective": "flow_matching"})
    (tmp_path / "data").symlink_to(line / "data")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(line / "models/base")
    finetune(params.model_copy(update={"finetune": options}), tmp_path)
    name = "transformer/diffusion_pytorch_model.safetensors"
    before, after = load_file(line / "models/base" / name), load_file(tmp_path / "models/candidate" / name)
    adapter = load_file(tmp_path / "models/candidate/lora/pytorch_lora_weights.safetensors")
    terms = {
        key.removeprefix("transformer.").removesuffix(".lora_A.weight"): (
            key,
            key.replace("lora_A", "lora_B"),
        )
        for key in adapter
        if "lora_A" in key
    }
    for key, weight in before.items():
        down, up = terms.get(key.removesuffix(".weight"), (None, None))
        expected = weight if down is None or up is None else weight + adapter[up] @ adapter[down]
        assert torch.allclose(after[key], expected, atol=1e-6, rtol=0), key
    assert any(adapter[up].ne(0).any() for _, up in terms.values())
    assert (tmp_path / "models/candidate/lora/target_time.safetensors").is_file()


def test_metrics_have_the_keys_that_gates_read(line: Path) -> None:
    metrics = metrics_of(line)
    assert metrics["scorer"] == "distribution"
    assert metrics["reference"]["nfe"] == 4
    assert metrics["candidate"].keys() == {"nfe1", "nfe2", "many"}
    assert metrics["ratio"].keys() == {"score_nfe1", "diversity_nfe1", "score_nfe2", "diversity_nfe2"}
    ratio = metrics["candidate"]["nfe1"]["score"] / metrics["reference"]["score"]
    assert metrics["ratio"]["score_nfe1"] == pytest.approx(ratio)


def test_both_models_are_judged_at_the_other_size_that_is_exported(line: Path) -> None:
    metrics = metrics_of(line)
    assert metrics["sizes"].keys() == {WIDE}
    there = metrics["sizes"][WIDE]
    assert there["candidate"].keys() == {"nfe1", "nfe2"}
    assert there["reference"] == metrics_of(line, "reference")["sizes"][WIDE]
    ratio = there["candidate"]["nfe1"]["score"] / there["reference"]["score"]
    assert there["ratio"]["score_nfe1"] == pytest.approx(ratio)
    assert there["candidate"]["nfe1"]["score"] != metrics["candidate"]["nfe1"]["score"]
    drawn = [read_samples(samples_at(line / "eval" / model, WIDE)) for model in ("reference", "candidate")]
    assert {sample.pixels.shape for samples in drawn for sample in samples} == {(32, 64, 3)}
    theirs, ours = ({(s.prompt_id, s.prompt, s.sample) for s in samples} for samples in drawn)
    assert ours == theirs


def test_other_sizes_change_nothing_at_the_square(params: Params, line: Path, tmp_path: Path) -> None:
    alone = params.model_copy(update={"export": params.export.model_copy(update={"sizes": ()})})
    for name in ("data", "models"):
        (tmp_path / name).symlink_to(line / name)
    reference(alone, tmp_path)
    evaluate(alone, tmp_path)
    for model in ("reference", "candidate"):
        sized = metrics_of(line, model)
        del sized["sizes"]
        assert metrics_of(tmp_path, model) == sized
        name = f"eval/{model}/samples.parquet"
        assert (tmp_path / name).read_bytes() == (line / name).read_bytes()
        assert not samples_at(tmp_path / "eval" / model, WIDE).exists()


def test_models_are_compared_on_the_same_prompts(line: Path) -> None:
    ours = read_samples(line / "eval/candidate/samples.parquet")
    theirs = read_samples(line / "eval/reference/samples.parquet")
    assert {(s.prompt_id, s.prompt, s.sample) for s in ours} == {
        (s.prompt_id, s.prompt, s.sample) for s in theirs
    }
    assert all(math.isnan(s.correct) for s in ours)


def test_a_second_look_is_larger_and_asks_a_served_package_for_the_same_images(
    params: Params, line: Path
) -> None:
    larger = params.larger_evaluation()
    assert larger is not None
    samples, metrics = evaluate_more(params, larger, line, ["nfe1", "nfe2"])
    wanted = images_to_draw(params.model_copy(update={"evaluate": larger}), line, None)
    for setting in ("nfe1", "nfe2"):
        ours = [(s.prompt_id, s.prompt, s.sample) for s in samples if s.setting == setting]
        assert ours == [(each["prompt_id"], each["prompt"], each["sample"]) for each in wanted]
    assert metrics["candidate"].keys() == {"nfe1", "nfe2"}
    first = read_samples(line / "eval/candidate/samples.parquet")
    assert len(samples) > len([s for s in first if s.setting in metrics["candidate"]])


def test_another_resolution_than_the_models_is_refused(params: Params, line: Path, tmp_path: Path) -> None:
    wrong = params.model_copy(update={"data": params.data.model_copy(update={"resolution": 36})})
    (tmp_path / "models").symlink_to(line / "models")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/prepared").symlink_to(line / "data/prepared")
    with pytest.raises(TwinflowError, match="multiples of 8 pixels, not 36x36"):
        encode(wrong, tmp_path)
    assert not (tmp_path / "data/encoded").exists()


def test_a_base_that_is_no_model_is_refused(params: Params, tmp_path: Path) -> None:
    missing = params.model_copy(update={"base": params.base.model_copy(update={"folder": "nowhere"})})
    with pytest.raises(TwinflowError, match="no diffusers pipeline"):
        base(missing, tmp_path)
