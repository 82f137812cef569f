"""The networks of a model folder, every weight of them out of its files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twinflow_core.backbones.plain_folder import LIBRARIES, read_index
from twinflow_core.errors import TwinflowError


def load_modules(folder: Path) -> dict[str, nn.Module]:
    """Every network of a diffusers folder in float32, each weight of it out of the folder's safetensors.

    The libraries fill weights that a file lacks with random numbers and say so in a log line alone.

    Raises:
        TwinflowError: a weight is missing.
    """
    modules: dict[str, nn.Module] = {}
    for name, part in read_index(folder).items():
        made_by = _class_of(part)
        if made_by is None:
            continue
        module, told = made_by.from_pretrained(
            folder / name,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        missing = sorted(told["missing_keys"])
        if missing:
            raise TwinflowError(
                f"The model's part `{name}` lacks {len(missing)} weight(s), {missing[0]} among them.",
                where=str(folder / name),
                fix="Fetch or save the model again: without them it would be filled with random numbers.",
            )
        modules[name] = module.eval()
    return modules


def _class_of(part: object) -> Any | None:
    """The class that an entry of the index names, if it is a network."""
    if not isinstance(part, list) or len(part) != 2 or part[0] not in LIBRARIES:
        return None
    found = getattr(importlib.import_module(part[0]), str(part[1]), None)
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None
