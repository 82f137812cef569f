"""A model folder from anywhere: weights and settings alone, no code, no pickles, nothing left to chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from twinflow_core.errors import TwinflowError

INDEX = "model_index.json"
# Loading a pickle can run any code that its writer chose.
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
LIBRARIES = ("diffusers", "transformers")


def read_index(folder: Path) -> dict[str, Any]:
    """The folder's `model_index.json`.

    Raises:
        TwinflowError: it is missing, is no JSON object, or names no class.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        index = None
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise TwinflowError(
            "The base model is no diffusers pipeline folder.",
            where=str(path),
            fix="Set base.folder in params.yaml to a folder written by save_pretrained.",
        )
    return index


def require_known_libraries(folder: Path) -> None:
    """Refuse a diffusers folder with a part of a library other than diffusers and transformers; reads its index alone.

    Raises:
        TwinflowError: it names such a part.
    """
    for name, part in read_index(folder).items():
        if isinstance(part, list) and part and part[0] not in (None, *LIBRARIES):
            raise TwinflowError(
                f"The model's part `{name}` comes from {part[0]!r}: only {' and '.join(LIBRARIES)} are allowed.",
                where=str(folder / INDEX),
                fix="Use a model made of these libraries' own classes.",
            )


def require_plain(folder: Path) -> None:
    """Refuse a diffusers folder that holds more than settings and sound weights; reads no weight.

    Raises:
        TwinflowError: it holds code, has a part with pickled weights alone, or a safetensors file whose header
            lies about its content.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".py":
            raise TwinflowError(
                "The model's folder holds code, which is never run.",
                where=str(path),
                fix="Use a model without code of its own; if the file is of no use to it, remove it.",
            )
        if path.suffix in PICKLES and not any(path.parent.glob("*.safetensors")):
            raise TwinflowError(
                "The model's weights are pickled: loading them could run any code, so they are refused.",
                where=str(path),
                fix="Convert the model to safetensors (save_pretrained writes that) on a machine of no value.",
            )
        if path.suffix == ".safetensors":
            _require_sound(path)


def _require_sound(path: Path) -> None:
    try:
        with safe_open(path, framework="np") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise TwinflowError(
            f"A file of weights is damaged: {error}", where=str(path), fix="Fetch or save the model again."
        ) from None
