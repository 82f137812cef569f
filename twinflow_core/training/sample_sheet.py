"""Pictures while training: the same prompts and noise every time, one step above four steps."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.velocity import Velocity
from twinflow_core.sampling.few_step import sample_few_steps
from twinflow_core.training.draws import normal
from twinflow_core.training.encoded import EncodedData

PICTURES = 8
STEPS = (1, 4)


class SampleSheet:
    """Draws with the averaged network and saves `step_<number>.png`.

    Args:
        backbone: decodes the latents.
        data: whose first captions are drawn, in the shape of their rows.
        folder: where the sheets go; made if it is missing.
        seed: of the noise.
        saves: whether to decode and save; the other ranks only do their part of the sampling.
    """

    def __init__(
        self, backbone: Backbone, data: EncodedData, folder: Path, seed: int, saves: bool = True
    ) -> None:
        self.backbone = backbone
        self.saves = saves
        self.folder = folder
        captions = data.caption[torch.arange(PICTURES) % len(data)]
        self.conditioning = data.conditioning[captions]
        self.noises = [normal(seed, k, "sample sheet", (k, PICTURES, *data.buckets[0].shape)) for k in STEPS]

    @torch.no_grad()
    def draw(self, velocity: Velocity, step: int) -> None:
        """One sheet of the network as it is now."""
        device = next(velocity.parameters()).device
        conditioning = self.conditioning.to(device)

        def bound(x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
            return velocity(x_t, t, r, conditioning)

        drawn = [sample_few_steps(bound, noises.to(device)) for noises in self.noises]
        if not self.saves:
            return
        sheet = torch.cat([self._row(latents) for latents in drawn])
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet.numpy()).save(self.folder / f"step_{step:06d}.png")

    def _row(self, latents: Tensor) -> Tensor:
        """uint8 [H, PICTURES W, 3]."""
        images = self.backbone.decode_latents(latents.to(self.backbone.pipeline.vae.device))
        side_by_side = torch.cat(list(images.cpu()), dim=2)
        return (side_by_side * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
