"""How each family's transformer is called, on tensors without data: shapes of its inputs, its time MLP, its blocks.

Facts are those of diffusers 0.42: `forward` of each class and what its pipeline passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from twinflow_core.backbones.lora import LAYERS
from twinflow_core.backbones.sana import SanaVelocity

Config = Mapping[str, Any]
META = torch.device("meta")


@dataclass(frozen=True)
class Inputs:
    """What one call's inputs follow from: rows, latents' height and width, text tokens of the longest prompt."""

    rows: int
    height: int
    width: int
    tokens: int


@dataclass(frozen=True)
class Family:
    """A transformer class of diffusers as the plan needs it.

    Attributes:
        name: the family's short name.
        downscale: pixels a latent pixel.
        tokens: text tokens that its pipeline passes at most.
        time_mlp: where its time MLP is, which the target time copies.
        counts: the config's keys that count blocks of one kind.
        call: keyword arguments of its `forward`.
        lora_layers: ends of the names of the layers that low-rank weights are put on.
    """

    name: str
    downscale: int
    tokens: int
    time_mlp: str
    counts: tuple[str, ...]
    call: Callable[[Config, Inputs], dict[str, Any]]
    lora_layers: Sequence[str] = LAYERS


def _rows(size: Inputs, *shape: int) -> Tensor:
    return torch.empty(size.rows, *shape, device=META)


def _image(config: Config, size: Inputs) -> Tensor:
    return _rows(size, config["in_channels"], size.height, size.width)


def _packed(config: Config, size: Inputs) -> Tensor:
    """Two by two latent pixels become one token."""
    return _rows(size, size.height // 2 * (size.width // 2), config["in_channels"])


def _sd3(config: Config, size: Inputs) -> dict[str, Any]:
    return {
        "hidden_states": _image(config, size),
        "timestep": _rows(size),
        "encoder_hidden_states": _rows(size, size.tokens, config["joint_attention_dim"]),
        "pooled_projections": _rows(size, config["pooled_projection_dim"]),
    }


def _sana(config: Config, size: Inputs) -> dict[str, Any]:
    return {
        "hidden_states": _image(config, size),
        "timestep": _rows(size),
        "encoder_hidden_states": _rows(size, size.tokens, config["caption_channels"]),
        "encoder_attention_mask": _rows(size, size.tokens),
    } | ({"guidance": _rows(size)} if config.get("guidance_embeds") else {})


def _qwen(config: Config, size: Inputs) -> dict[str, Any]:
    return {
        "hidden_states": _packed(config, size),
        "timestep": _rows(size),
        "encoder_hidden_states": _rows(size, size.tokens, config["joint_attention_dim"]),
        "encoder_hidden_states_mask": _rows(size, size.tokens).bool(),
        "img_shapes": [[(1, size.height // 2, size.width // 2)]] * size.rows,
    }


def _flux(config: Config, size: Inputs) -> dict[str, Any]:
    axes = len(config["axes_dims_rope"])
    image = _packed(config, size)
    given = {
        "hidden_states": image,
        "timestep": _rows(size),
        "encoder_hidden_states": _rows(size, size.tokens, config["joint_attention_dim"]),
        "img_ids": torch.empty(image.shape[1], axes, device=META),
        "txt_ids": torch.empty(size.tokens, axes, device=META),
    }
    if "pooled_projection_dim" in config:
        given["pooled_projections"] = _rows(size, config["pooled_projection_dim"])
    return given | ({"guidance": _rows(size)} if config.get("guidance_embeds") else {})


def _z_image(config: Config, size: Inputs) -> dict[str, Any]:
    image = (config["in_channels"], 1, size.height, size.width)
    return {
        "x": [torch.empty(*image, device=META) for _ in range(size.rows)],
        "t": _rows(size),
        "cap_feats": [
            torch.empty(size.tokens, config["cap_feat_dim"], device=META) for _ in range(size.rows)
        ],
    }


FAMILIES: dict[str, Family] = {
    "SD3Transformer2DModel": Family(
        "sd3", 8, 333, "time_text_embed.timestep_embedder", ("dual_attention_layers", "num_layers"), _sd3
    ),
    "SanaTransformer2DModel": Family(
        "sana",
        32,
        300,
        "time_embed.emb.timestep_embedder",
        ("num_layers",),
        _sana,
        SanaVelocity.lora_layers,
    ),
    "QwenImageTransformer2DModel": Family(
        "qwen", 8, 512, "time_text_embed.timestep_embedder", ("num_layers",), _qwen
    ),
    "ZImageTransformer2DModel": Family("z-image", 8, 512, "t_embedder", ("n_layers",), _z_image),
    "FluxTransformer2DModel": Family(
        "flux", 8, 512, "time_text_embed.timestep_embedder", ("num_layers", "num_single_layers"), _flux
    ),
    "Flux2Transformer2DModel": Family(
        "flux2", 8, 512, "time_guidance_embed.timestep_embedder", ("num_layers", "num_single_layers"), _flux
    ),
}
