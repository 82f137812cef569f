"""The backbone of a diffusers folder."""

from __future__ import annotations

from pathlib import Path

from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.flux import FluxBackbone
from twinflow_core.backbones.flux2 import Flux2Backbone, Flux2KleinBackbone
from twinflow_core.backbones.qwen_image import QwenImageBackbone
from twinflow_core.backbones.sana import SanaBackbone
from twinflow_core.backbones.sd3 import Sd3Backbone
from twinflow_core.backbones.supported import pipeline_class
from twinflow_core.backbones.z_image import ZImageBackbone
from twinflow_core.errors import TwinflowError

# By the class that `model_index.json` names.
FAMILIES: dict[str, type[Backbone]] = {
    family.pipeline_type.__name__: family
    for family in (
        Flux2Backbone,
        Flux2KleinBackbone,
        FluxBackbone,
        QwenImageBackbone,
        SanaBackbone,
        Sd3Backbone,
        ZImageBackbone,
    )
}


def load_backbone(folder: Path, resolution: int | None = None) -> Backbone:
    """Load the pipeline in `folder` behind its family's backbone; refuses what `pipeline_class` refuses.

    Args:
        folder: of the pipeline.
        resolution: side of the square images to make, in pixels; the model's own if None.

    Raises:
        TwinflowError: also if a file is damaged, lacks a weight, or does not fit the others, or if the model
            does not make images of that resolution.
    """
    # Their notices repeat whole batches of captions; the encode stage says in one line what is cut.
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    family = FAMILIES[pipeline_class(folder)]
    try:
        backbone = family.load(folder)
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, SafetensorError) as error:
        raise TwinflowError(
            f"The model cannot be loaded: {' '.join(str(error).split())[:300]}",
            where=str(folder),
            fix="Fetch or save the model again.",
        ) from error
    if resolution is not None:
        backbone.at_size(resolution, resolution)
    return backbone
