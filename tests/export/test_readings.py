"""The package's tokenizers give what each family's pipeline gives its language model, whatever is written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from tests.backbones.families import BUILDERS, RESOLUTION
from tests.backbones.tiny_flux2 import build_tiny_flux2_dev
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.export.chat_wording import written_around
from twinflow_core.export.text import tokenizers
from twinflow_core.runtime.prompt_tokens import PromptTokens

FAMILIES = {
    "flux2": build_tiny_flux2_dev,
    **{name: BUILDERS[name] for name in ("flux2-klein", "qwen-image", "sana", "z-image")},
}
# Whose denoisers read padding, so that every place counts; of the others what follows the text does not.
READ_PADDING = ("flux2", "flux2-klein")
ODD = (
    "",
    " ",
    " \n\t",
    "A RED Circle ",
    "[IMG] in [IMG]",
    "<|im_end|>\n<|im_start|>assistant",
    "{} {{ messages }} {0}",
    "größerer Stern ☆ 星",
    "red circle " * 300,
)
TEXTS = st.one_of(st.sampled_from(ODD), st.text(max_size=40))


class Caught(Exception):
    """The language model was called: what it would answer is of no interest."""


@pytest.fixture(scope="module", params=[(name, side) for name in FAMILIES for side in ("right", "left")])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    family, side = request.param
    folder = FAMILIES[family](tmp_path_factory.mktemp("family") / "pipeline")
    backbone = load_backbone(folder, RESOLUTION)
    backbone.pipeline.tokenizer.padding_side = side
    if family == "flux2":
        adds_a_first_token(backbone.pipeline.tokenizer)
    return backbone


def adds_a_first_token(tokenizer: Any) -> None:
    """As the released tokenizer does; in a chat it is kept from that."""
    first = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, tokenizer.convert_tokens_to_ids(first))]
    )


@pytest.fixture(scope="module")
def packaged(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> PromptTokens:
    folder = tmp_path_factory.mktemp("package")
    tokenizer = tokenizers(backbone)["tokenizer"]
    tokenizer.backend().save(str(folder / "tokenizer.json"))
    return PromptTokens(folder, tokenizer.spec("tokenizer.json", 0))


def read(backbone: Backbone, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask that the pipeline calls its language model with."""
    told: dict[str, Any] = {}

    def note(_: object, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        told.update(dict(zip(["input_ids"], positional, strict=False)) | named)
        raise Caught

    hook = backbone.pipeline.text_encoder.register_forward_pre_hook(note, with_kwargs=True)
    with suppress(Caught):
        backbone.encode_prompts([text])
    hook.remove()
    return told["input_ids"][0].numpy(), told["attention_mask"][0].numpy()


@given(text=TEXTS)
@settings(max_examples=40, deadline=None)
def test_the_language_model_reads_what_the_pipeline_gives_it(
    backbone: Backbone, packaged: PromptTokens, text: str
) -> None:
    wanted, counts = read(backbone, text)
    served, served_counts = (part[0] for part in packaged([text]).values())
    if backbone.family in READ_PADDING:
        np.testing.assert_array_equal(served, wanted)
        np.testing.assert_array_equal(served_counts, counts)
    else:
        length = int(served_counts.sum())
        assert served_counts[:length].all()
        wanted = wanted[counts != 0]
        # Qwen-Image's pipeline reads on, and drops the states of what is too long.
        kept = len(served) if backbone.family == "qwen-image" else len(wanted)
        np.testing.assert_array_equal(served[:length], wanted[:kept])


@pytest.mark.parametrize("family", ["qwen-image", "z-image"])
def test_the_side_is_nothing_to_those_that_drop_padding(family: str, tmp_path: Path) -> None:
    backbone = load_backbone(FAMILIES[family](tmp_path / "pipeline"), RESOLUTION)
    told = []
    for side in ("left", "right"):
        backbone.pipeline.tokenizer.padding_side = side
        told.append(backbone.encode_prompts(["a red circle", "", "two blue squares above a circle"]))
    (one, counts), (other, same) = ((each.prompt_embeds, each.mask) for each in told)
    assert counts is not None
    assert torch.equal(counts, same)
    torch.testing.assert_close(one[counts], other[counts])


@pytest.mark.parametrize("template", [str.strip, lambda prompt: prompt.replace("<", "&lt;"), str.lower])
def test_a_template_that_changes_the_prompt_is_refused(template: Any) -> None:
    with pytest.raises(TwinflowError, match="changes the prompt"):
        written_around(template)
