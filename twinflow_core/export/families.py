"""What the graphs of one family need that others do not: what hangs on time alone, and what ONNX cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.export.real_rope import qwen_in_real_numbers, qwen_of_any_batch
from twinflow_core.export.z_image_rows import ZImageRows, in_real_numbers

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
_FLUX2 = GraphFamily(
    time_only=r"(double_stream_modulation_(img|txt)|single_stream_modulation)|norm_out\.linear",
    folds=r"(time_guidance_embed|\w+_modulation\w*)\.|norm_out\.linear\.",
)
FAMILIES: dict[str, GraphFamily] = {
    "sd3": GraphFamily(
        time_only=r"time_text_embed\.timestep_embedder", folds=r"time_text_embed\.timestep_embedder\."
    ),
    "flux": GraphFamily(
        time_only=r"time_text_embed\.(timestep|guidance)_embedder",
        folds=r"time_text_embed\.(timestep|guidance)_embedder\.",
    ),
    "flux2": _FLUX2,
    "flux2-klein": _FLUX2,
    "sana": GraphFamily(
        time_only=r"time_embed\.(linear|(emb\.)?timestep_embedder|guidance_embedder)", folds=r"time_embed\."
    ),
    "qwen-image": GraphFamily(
        time_only=r"transformer_blocks\.\d+\.(img|txt)_mod|norm_out\.linear",
        folds=r"time_text_embed\.|.*\.(img|txt)_mod\.|norm_out\.linear\.",
        denoise=qwen_of_any_batch,
        traceable=qwen_in_real_numbers,
    ),
    "z-image": GraphFamily(
        time_only=r"(noise_refiner|layers|all_final_layer)\.[\w-]+\.adaLN_modulation",
        folds=r"t_embedder\.|.*adaLN_modulation\.",
        denoise=lambda backbone: ZImageRows(backbone.pipeline.transformer),
        traceable=in_real_numbers,
    ),
}
