"""What the graphs of one family need that others do not: what hangs on time alone, and what ONNX cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning

Denoise = Callable[[Tensor, Tensor, Conditioning], Tensor]


def _stock(backbone: Backbone) -> Denoise:
    return backbone.velocity.predict


def _as_it_is(backbone: Backbone) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class GraphFamily:
    """How the denoisers of one family become graphs.

    Attributes:
        time_only: pattern of the names of the modules whose one output depends on time (and on constant guidance)
            alone; given these, nothing else in the network needs the time.
        folds: pattern of the names of the parameters that only these modules need, and so vanish.
        denoise: the denoiser to trace; by default the backbone's own.
        traceable: a context in which it can be traced.
    """

    time_only: str
    folds: str
    denoise: Callable[[Backbone], Denoise] = _stock
    traceable: Callable[[Backbone], AbstractContextManager[None]] = _as_it_is


# Where pooled text enters the modulation (SD3, FLUX.1), only the time MLP folds.
FAMILIES: dict[str, GraphFamily] = {
    "sd3": GraphFamily(
        time_only=r"time_text_embed\.timestep_embedder", folds=r"time_text_embed\.timestep_embedder\."
    ),
}
