"""The denoiser of the bundled base: a small SD3 transformer, and a forward pass that shows its inner features."""

from __future__ import annotations

import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from twinflow_core.data.shapes_world import COLORS, SHAPES
from twinflow_core.pretrain.recipe import FlowRecipe

LATENT_SIDE = 8
# What a patch of the picture can show, and in which colour; 0 is the ground.
LAYOUT: tuple[int, int] = (len(SHAPES) + 1, len(COLORS) + 1)


def build_denoiser(recipe: FlowRecipe, channels: int, text_width: int) -> SD3Transformer2DModel:
    """An untrained denoiser; modulation and output start at zero, so that every block starts as the identity.

    Args:
        recipe: sizes.
        channels: of the latents.
        text_width: of a token's state and of the pooled embedding, both encoders together.
    """
    width = recipe.heads * recipe.head_width
    model = SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=recipe.patch,
        in_channels=channels,
        out_channels=channels,
        num_layers=recipe.layers,
        attention_head_dim=recipe.head_width,
        num_attention_heads=recipe.heads,
        joint_attention_dim=text_width,
        caption_projection_dim=width,
        pooled_projection_dim=text_width,
        pos_embed_max_size=LATENT_SIDE,
        qk_norm="rms_norm",
    )
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and _is_modulation(name):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return model


def _is_modulation(name: str) -> bool:
    return name == "proj_out" or name.endswith(("norm1.linear", "norm1_context.linear", "norm_out.linear"))


def hidden_matrices(model: SD3Transformer2DModel) -> list[nn.Parameter]:
    """The matrices between features inside the blocks; embeddings, modulation and output are left out."""
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and name.startswith("transformer_blocks") and "norm" not in name
    ]


class FeatureDenoiser(nn.Module):
    """The transformer's own forward, returning besides the velocity the layout read from an inner block.

    Making inner features tell what will be seen where (a representation loss, as in REPA, arXiv 2410.06940, with
    the scene itself in place of a pretrained encoder) teaches composition in far fewer steps than the velocity
    alone; the reading head is thrown away afterwards.
    """

    def __init__(self, model: SD3Transformer2DModel, block: int) -> None:
        super().__init__()
        self.model = model
        self.block = block
        self.head = nn.Linear(model.inner_dim, sum(LAYOUT) * model.config.patch_size**2)

    def forward(
        self, x_t: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor, pooled: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Velocity and layout logits.

        Args:
            x_t: noisy latents [B, C, 8, 8].
            t: times in [0, 1], [B].
            tokens: text states [B, L, text width].
            pooled: pooled text [B, text width].

        Returns:
            Velocity [B, C, 8, 8] and logits [B, 64, shapes + colours], cells in row order.
        """
        model = self.model
        image = model.pos_embed(x_t)
        context = model.context_embedder(tokens)
        modulation = model.time_text_embed(1000 * t, pooled)
        features = image
        for index, block in enumerate(model.transformer_blocks):
            context, image = block(hidden_states=image, encoder_hidden_states=context, temb=modulation)
            if index == self.block:
                features = image
        velocity = model.proj_out(model.norm_out(image, modulation))
        normed = nn.functional.layer_norm(features, features.shape[-1:])
        return self._cells(velocity), self._cells(self.head(normed)).flatten(2).transpose(1, 2)

    def _cells(self, patches: torch.Tensor) -> torch.Tensor:
        """Patches [B, N, p * p * C] to the grid [B, C, 8, 8]."""
        side = self.model.config.patch_size
        grid = LATENT_SIDE // side
        split = patches.unflatten(1, (grid, grid)).unflatten(-1, (side, side, -1))
        return torch.einsum("nhwpqc->nchpwq", split).flatten(4, 5).flatten(2, 3)
