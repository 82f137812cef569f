"""How each family reads its language model: the chat, the length, the layers and the tokens that its pipeline takes.

Where the denoiser is told which tokens are the prompt's, texts are filled up on the right whatever side the tokenizer
names: no token looks at what follows it, and attention knows the distances between tokens, not their places.
"""

from __future__ import annotations

import inspect
from typing import Any

from diffusers import Flux2KleinPipeline, Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2 import format_input

from twinflow_core.backbones import qwen_image as qwen
from twinflow_core.backbones import sana as gemma
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.chat_text import user_message
from twinflow_core.export.chat_wording import written_around
from twinflow_core.export.language_model import Reading
from twinflow_core.export.padded_tokenizer import PaddedTokenizer
from twinflow_core.runtime.wording import Wording

# What FLUX.2's pipelines leave out of prompts: the place of an image.
IMAGE_TOKEN = "[IMG]"


def sana(backbone: Backbone) -> Reading:
    """Gemma 2's last states: the first token's, and those from the end of the instruction on."""
    tokenizer = backbone.pipeline.tokenizer
    instruction = "\n".join(gemma.INSTRUCTION)
    # As the pipeline counts: the first token and the instruction's last are among the TOKENS.
    length = len(tokenizer.encode(instruction)) + gemma.TOKENS - 2
    return Reading(
        PaddedTokenizer(tokenizer, length, Wording(before=instruction, small=True), masked=True),
        layers=(-1,),
        places=(0, *range(length - gemma.TOKENS + 1, length)),
        masked=True,
    )


def qwen_image(backbone: Backbone) -> Reading:
    """Qwen2.5-VL's last states behind the template's beginning."""
    pipeline = backbone.pipeline
    wording = written_around(pipeline.prompt_template_encode.format, empty=qwen.EMPTY)
    dropped = pipeline.prompt_template_encode_start_idx
    length = dropped + qwen.TOKENS
    return Reading(
        PaddedTokenizer(pipeline.tokenizer, length, wording, masked=True),
        layers=(-1,),
        places=range(dropped, length),
        masked=True,
    )


def z_image(backbone: Backbone) -> Reading:
    """Qwen3's states before the last layer."""
    tokenizer, length = backbone.pipeline.tokenizer, backbone.max_tokens
    wording = written_around(lambda prompt: user_message(tokenizer, prompt, enable_thinking=True))
    return Reading(
        PaddedTokenizer(tokenizer, length, wording, masked=True),
        layers=(-2,),
        places=range(length),
        masked=True,
    )


def flux2_klein(backbone: Backbone) -> Reading:
    """Three layers of Qwen3, those of padding too."""
    tokenizer, length = backbone.pipeline.tokenizer, backbone.max_tokens
    wording = written_around(lambda prompt: user_message(tokenizer, prompt, enable_thinking=False))
    return Reading(
        PaddedTokenizer(tokenizer, length, wording, masked=True, side=tokenizer.padding_side),
        layers=_layers(Flux2KleinPipeline),
        places=range(length),
        masked=False,
    )


def flux2(backbone: Backbone) -> Reading:
    """Three layers of Mistral 3, those of padding too. The released tokenizer lies in a processor of images."""
    chat, length = backbone.pipeline.tokenizer, backbone.max_tokens
    tokenizer = getattr(chat, "tokenizer", chat)
    message = backbone.pipeline.system_message
    wording = written_around(
        lambda prompt: chat.apply_chat_template(format_input([prompt], message), tokenize=False)[0],
        removed=IMAGE_TOKEN,
    )
    return Reading(
        PaddedTokenizer(tokenizer, length, wording, masked=True, side=tokenizer.padding_side, special=False),
        layers=_layers(Flux2Pipeline),
        places=range(length),
        masked=False,
    )


def _layers(pipeline: Any) -> tuple[int, ...]:
    layers: tuple[int, ...] = (
        inspect.signature(pipeline.encode_prompt).parameters["text_encoder_out_layers"].default
    )
    return layers
