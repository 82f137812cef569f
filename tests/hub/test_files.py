"""Which files of a repository are fetched: one set of weights a network, nothing that is pickled or of no use."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinflow_core.errors import TwinflowError
from twinflow_core.hub.files import pipeline_files, plain_name

INDEX = {
    "_class_name": "StableDiffusion3Pipeline",
    "_diffusers_version": "0.30.0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "image_encoder": [None, None],
}
ALWAYS = {
    "model_index.json",
    "README.md",
    "LICENSE.md",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer/spiece.model",
    "tokenizer/merges.txt",
    "tokenizer/chat_template.jinja",
    "transformer/config.json",
}
NEVER = {
    ".gitattributes",
    "sd3.5_medium.safetensors",
    "demo.jpg",
    "image_encoder/model.safetensors",
    "text_encoders/t5xxl_fp16.safetensors",
    "text_encoder/flax_model.msgpack",
    "text_encoder/pytorch_model.bin",
    "text_encoder/pytorch_model.bin.index.json",
    "transformer/consolidated.safetensors",
    "transformer/modeling.py",
    "transformer/deeper/config.json",
}
TRANSFORMER = "transformer/diffusion_pytorch_model"
PLAIN = {f"{TRANSFORMER}.safetensors"}
HALF = {f"{TRANSFORMER}.fp16.safetensors"}
SHARDS = {
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
    "text_encoder/model.safetensors.index.json",
}
HALF_SHARDS = {
    "text_encoder/model.fp16-00001-of-00002.safetensors",
    "text_encoder/model.fp16-00002-of-00002.safetensors",
    "text_encoder/model.safetensors.index.fp16.json",
}


def test_full_weights_before_rounded_ones_and_one_file_before_shards() -> None:
    chosen = pipeline_files(INDEX, ALWAYS | NEVER | PLAIN | HALF | SHARDS | HALF_SHARDS, "a model")
    assert chosen == {name: name for name in sorted(ALWAYS | PLAIN | SHARDS)}
    one_file = {"text_encoder/model.safetensors"}
    assert set(pipeline_files(INDEX, ALWAYS | one_file | SHARDS, "a model")) == ALWAYS | one_file


def test_rounded_weights_where_there_are_no_others_under_the_names_that_loading_looks_for() -> None:
    chosen = pipeline_files(INDEX, ALWAYS | HALF | HALF_SHARDS, "a model")
    assert set(chosen) == ALWAYS | HALF | HALF_SHARDS
    assert set(chosen.values()) == ALWAYS | PLAIN | SHARDS


@pytest.mark.parametrize(
    ("lonely", "says"),
    [
        ({"transformer/diffusion_pytorch_model.bin"}, "pickled"),
        ({f"{TRANSFORMER}.fp8.safetensors"}, "as fp8 alone"),
    ],
)
def test_weights_that_are_not_fetched_are_a_refusal(lonely: set[str], says: str) -> None:
    with pytest.raises(TwinflowError, match=says) as caught:
        pipeline_files(INDEX, ALWAYS | SHARDS | lonely, "a model")
    assert caught.value.where == "a model: transformer"


NAMES = st.lists(st.sampled_from(["..", ".", "", "a", "transformer", "config.json", "model.safetensors"]))


@settings(max_examples=50)
@given(
    st.lists(NAMES.map("/".join)), st.dictionaries(st.text(max_size=3) | st.just(".."), st.just(["a", "B"]))
)
def test_whatever_is_listed_stays_inside_the_folder(names: list[str], index: dict[str, list[str]]) -> None:
    for name, stored in pipeline_files(index | {"transformer": ["a", "B"]}, names, "a model").items():
        assert name in names
        assert not {"", ".", ".."} & set(stored.split("/"))
        assert plain_name(stored) == stored
