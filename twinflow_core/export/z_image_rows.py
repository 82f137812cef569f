"""Z-Image's denoiser on whole batches: stock, it takes lists and looks at each row's length, which no graph can.

Every row keeps what it has alone: its caption is filled up to a multiple of 32 with the model's own token, which is
read, the rest of the batch's width is masked, and the image's place on the first axis follows the caption's length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.packing import PATCH
from twinflow_core.export.real_rope import RealAttention

MULTIPLE = 32
EMBEDDER = f"{PATCH}-1"


class ZImageRows:
    """F(x_t, t, 0) of a Z-Image transformer for a batch of latents, times and padded captions.

    Args:
        transformer: its attention runs in real numbers (`in_real_numbers`).
    """

    def __init__(self, transformer: Any) -> None:
        self._network = transformer
        rope = transformer.rope_embedder
        tables = rope.precompute_freqs_cis(rope.axes_dims, rope.axes_lens, theta=rope.theta)
        self._angles = [torch.view_as_real(table) for table in tables]

    def __call__(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """Velocity [B, C, H, W]; see `Velocity.predict`."""
        network, mask = self._network, conditioning.mask
        assert mask is not None
        time = network.t_embedder((1 - t) * network.t_scale)
        length = mask.sum(dim=1)
        filled = (length + MULTIPLE - 1) // MULTIPLE * MULTIPLE
        image, image_angles = self._image(x_t, filled)
        for layer in network.noise_refiner:
            image = layer(image, None, image_angles, time)
        caption, caption_angles, read = self._caption(conditioning.prompt_embeds, length, filled)
        for layer in network.context_refiner:
            caption = layer(caption, read, caption_angles)
        tokens = image.shape[1]
        both = torch.cat([image, caption], dim=1)
        angles = torch.cat([image_angles, caption_angles.expand(x_t.shape[0], -1, -1, -1, -1)], dim=1)
        every = torch.cat([torch.ones_like(image[:, :, 0], dtype=torch.bool), read], dim=1)
        for layer in network.layers:
            both = layer(both, every, angles, time)
        velocity = network.all_final_layer[EMBEDDER](both[:, :tokens], c=time)
        return -self._unpatched(velocity, *x_t.shape[1:])

    def _image(self, x_t: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded patches [B, N, W], N filled up to MULTIPLE, and their angles [B, N, 1, D, 2]."""
        network, (channels, height, width) = self._network, x_t.shape[1:]
        high, wide = height // PATCH, width // PATCH
        patches = x_t.unflatten(2, (high, PATCH)).unflatten(4, (wide, PATCH)).permute(0, 2, 4, 3, 5, 1)
        embedded = network.all_x_embedder[EMBEDDER](
            patches.reshape(-1, high * wide, PATCH * PATCH * channels)
        )
        missing = -(high * wide) % MULTIPLE
        first = self._angles[0][filled + 1][:, None].expand(-1, high * wide, -1, -1)
        row, column = (
            grid.flatten() for grid in torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
        )
        place = torch.cat([self._angles[1][row], self._angles[2][column]], dim=1)
        angles = torch.cat([first, place.expand(x_t.shape[0], -1, -1, -1)], dim=2)
        if missing:
            filler = network.x_pad_token.expand(x_t.shape[0], missing, -1)
            origin = torch.cat([table[:1] for table in self._angles], dim=1)
            embedded = torch.cat([embedded, filler], dim=1)
            angles = torch.cat([angles, origin.expand(x_t.shape[0], missing, -1, -1)], dim=1)
        return embedded, angles.unsqueeze(2)

    def _caption(self, embeds: Tensor, length: Tensor, filled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embedded captions [B, M, W], their angles [1, M, 1, D, 2], and which tokens are read, [B, M]."""
        network = self._network
        embeds = functional.pad(embeds, (0, 0, 0, -embeds.shape[1] % MULTIPLE))
        places = torch.arange(embeds.shape[1])
        caption = network.cap_embedder(embeds)
        caption = torch.where((places < length[:, None])[..., None], caption, network.cap_pad_token)
        origins = [table[:1].expand(len(places), -1, -1) for table in self._angles[1:]]
        angles = torch.cat([self._angles[0][places + 1], *origins], dim=1)
        return caption, angles[None, :, None], places < filled[:, None]

    def _unpatched(self, tokens: Tensor, channels: int, height: int, width: int) -> Tensor:
        high, wide = height // PATCH, width // PATCH
        patches = tokens[:, : high * wide].reshape(-1, high, wide, PATCH, PATCH, channels)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, height, width)


@contextmanager
def in_real_numbers(backbone: Backbone) -> Iterator[None]:
    """Let a Z-Image transformer's attention turn in real numbers."""
    transformer = backbone.pipeline.transformer
    layers = [*transformer.noise_refiner, *transformer.context_refiner, *transformer.layers]
    stock = [layer.attention.processor for layer in layers]
    for layer in layers:
        layer.attention.processor = RealAttention()
    try:
        yield
    finally:
        for layer, processor in zip(layers, stock, strict=True):
            layer.attention.processor = processor
