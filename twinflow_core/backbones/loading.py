"""Which family a diffusers folder belongs to, and its backbone."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from twinflow_core.backbones.sd3 import Sd3Backbone
from twinflow_core.errors import TwinflowError

FAMILIES = {"StableDiffusion3Pipeline": Sd3Backbone}


def pipeline_class(folder: Path) -> str:
    """The pipeline's class name as `model_index.json` gives it.

    Raises:
        TwinflowError: no diffusers folder there, or a family that is not supported.
    """
    index = folder / "model_index.json"
    try:
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError):
        raise TwinflowError(
            "The base model is no diffusers pipeline folder.",
            where=str(index),
            fix="Set base.folder in params.yaml to a folder written by save_pretrained.",
        ) from None
    if name not in FAMILIES:
        raise TwinflowError(
            f"Models of class {name} are not supported.",
            where=str(index),
            fix=f"Use one of: {', '.join(sorted(FAMILIES))}.",
        )
    return name


def load_backbone(folder: Path) -> Sd3Backbone:
    """Load the pipeline in `folder` behind its family's backbone; refuses what `pipeline_class` refuses."""
    # Their notices repeat whole batches of captions; the encode stage says in one line what is cut.
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    return FAMILIES[pipeline_class(folder)].load(folder)
