"""The modules that are traced, each part of the pipeline once, and the values at which their graphs are cut.

A traced part gives more outputs than its own: what its network was called with and answered, and what depends on time
alone. `export.cut` cuts the graph at them: one trace gives the stock network that other programs look for, and the
network whose time is a constant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.export.families import GraphFamily

HIDDEN, TIME, VELOCITY = "hidden_states", "timestep", "velocity"
LATENTS, IMAGES = "latents", "images"
# Prefixes of the outputs that mark where to cut.
STOCK, TIME_VALUE = "stock.", "time_value."
STOCK_OUTPUT = STOCK + "output"


class MarkedVelocity(nn.Module):
    """F(x_t, t, 0) as `Velocity` has it, and the marks: the transformer's own call, and what hangs on time alone.

    Args:
        backbone: in evaluation mode.
        family: how its kind is traced.
        conditioning: an example, whose parts say what the graph takes.
    """

    def __init__(self, backbone: Backbone, family: GraphFamily, conditioning: Conditioning) -> None:
        super().__init__()
        self.velocity = backbone.velocity
        self._denoise = family.denoise(backbone)
        self._parts = list(conditioning.tensors())
        network = self.velocity.transformer
        pattern = re.compile(family.time_only)
        self._time_only = [name for name, _ in network.named_modules() if pattern.fullmatch(name)]
        # By the transformer's own names: which of our inputs it is given as they are, and where to cut for the others.
        self.renamed: dict[str, str] = {}
        self.cut_at: list[str] = []
        self._learn_call(backbone, conditioning)

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs in order."""
        return [HIDDEN, TIME, *self._parts]

    @property
    def time_values(self) -> list[str]:
        """Names of the outputs that depend on time alone."""
        return [f"{TIME_VALUE}{name}" for name in self._time_only]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs in order."""
        marks = [STOCK_OUTPUT, *(STOCK + name for name in self.cut_at)] if self.has_stock_call else []
        return [VELOCITY, *self.time_values, *marks]

    @property
    def has_stock_call(self) -> bool:
        """Whether the transformer's own call takes tensors, so that a graph can stand for it."""
        return HIDDEN in (*self.cut_at, *self.renamed)

    def forward(
        self, x_t: Tensor, t: Tensor, first: Tensor, second: Tensor | None = None, third: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Velocity [B, C, H, W] of latents [B, C, H, W], times [B] in [0, 1] and conditioning; then the marks."""
        parts = [part for part in (first, second, third) if part is not None]
        self.velocity.target_time.r = None
        with self._recording() as (called, answered, values):
            velocity = self._denoise(x_t, t, Conditioning.of(dict(zip(self._parts, parts, strict=True))))
        marks = [answered[0], *(called[name] for name in self.cut_at)] if self.has_stock_call else []
        return (velocity, *(values[name] for name in self._time_only), *marks)

    @torch.no_grad()
    def at(self, time: float, example: Conditioning, shape: Sequence[int]) -> dict[str, Tensor]:
        """What depends on time alone at one time in [0, 1], by name: each value has one row.

        One row at a time: a matrix product of several rows may round differently. Computed here, in torch, they
        become constants of a graph: besides the saving, a runtime's own sine of 1000 would be off in the fourth
        decimal.
        """
        parts = [part[:1] for part in example.tensors().values()]
        values = self(torch.zeros(1, *shape), torch.tensor([time]), *parts)
        return dict(zip(self.time_values, values[1:], strict=False))

    @torch.no_grad()
    def _learn_call(self, backbone: Backbone, conditioning: Conditioning) -> None:
        rows = len(conditioning)
        x_t, t = torch.zeros(rows, *backbone.latent_shape), torch.ones(rows)
        ours = {
            id(x_t): HIDDEN,
            id(t): TIME,
            **{id(part): name for name, part in conditioning.tensors().items()},
        }
        with self._recording() as (called, _, _):
            self._denoise(x_t, t, conditioning)
        for name, value in called.items():
            if id(value) in ours:
                self.renamed[name] = ours[id(value)]
            elif isinstance(value, Tensor) and value.ndim and len(value) == rows:
                self.cut_at.append(name)

    @contextmanager
    def _recording(self) -> Iterator[tuple[dict[str, Any], list[Tensor], dict[str, Tensor]]]:
        """The transformer's arguments, its answer, and the values of time, filled while it runs."""
        called: dict[str, Any] = {}
        answered: list[Tensor] = []
        values: dict[str, Tensor] = {}
        network = self.velocity.transformer

        def note(name: str) -> Any:
            return lambda module, arguments, output: values.__setitem__(name, output)

        hooks = [
            network.register_forward_pre_hook(lambda _, __, told: called.update(told), with_kwargs=True),
            network.register_forward_hook(lambda _, __, answer: answered.append(answer[0])),
            *(network.get_submodule(name).register_forward_hook(note(name)) for name in self._time_only),
        ]
        try:
            yield called, answered, values
        finally:
            for hook in hooks:
                hook.remove()


class MarkedDecoder(nn.Module):
    """Normalised latents to images in [0, 1], and the marks: what the VAE itself takes and gives."""

    inputs = (LATENTS,)
    outputs = (IMAGES, STOCK + "latent_sample", STOCK + "sample")

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.vae = backbone.pipeline.vae
        self._decode_latents = backbone.decode_latents

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images [B, 3, H, W] in [0, 1] of latents [B, C, h, w]; then the marks."""
        marks: list[Tensor] = []
        stock = self.vae.decode

        def decode(raw: Tensor, *arguments: Any, **told: Any) -> Any:
            decoded = stock(raw, *arguments, **told)
            marks.extend((raw, decoded[0]))
            return decoded

        self.vae.decode = decode
        try:
            images = self._decode_latents(latents)
        finally:
            del self.vae.decode
        return (images, *marks)  # type: ignore[return-value]


class SplitTextEncoder(nn.Module):
    """One CLIP text encoder with the outputs, in the order, that optimum-onnx names."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """text_embeds [B, P], last_hidden_state [B, L, W], then every layer's hidden state."""
        output = self.encoder(input_ids, output_hidden_states=True)
        return (output.text_embeds, output.last_hidden_state, *output.hidden_states)
