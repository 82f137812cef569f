"""Published models by name, as the configurations of their transformers; and the one in a diffusers folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from twinflow_core.errors import TwinflowError
from twinflow_core.hub.fetch import fetch_file
from twinflow_core.hub.pinned import HubModel
from twinflow_core.plan.families import FAMILIES

MODELS = files("twinflow_core.plan") / "models"
SUFFIX = ".json"


@dataclass(frozen=True)
class PlannedModel:
    """What is planned for.

    Attributes:
        name: its name here, or its folder.
        class_name: the transformer's class in diffusers.
        config: the transformer's configuration.
        resolution: side of the images it is used at, in pixels; 0 where nothing says so.
        source: where the configuration is from.
    """

    name: str
    class_name: str
    config: dict[str, Any]
    resolution: int
    source: str


def model_names() -> list[str]:
    """The names that `named_model` knows."""
    return sorted(path.name.removesuffix(SUFFIX) for path in MODELS.iterdir() if path.name.endswith(SUFFIX))


def named_model(name: str) -> PlannedModel:
    """A published model.

    Raises:
        TwinflowError: none has this name.
    """
    if name not in model_names():
        raise TwinflowError(
            f"No model is known as {name!r}.", where="--model", fix=f"Use one of: {', '.join(model_names())}."
        )
    told = json.loads((MODELS / f"{name}{SUFFIX}").read_text(encoding="utf-8"))
    return PlannedModel(name, told["class"], told["config"], told["resolution"], told["repository"])


def model_in(folder: Path) -> PlannedModel:
    """The model of a diffusers folder; reads no weight.

    Raises:
        TwinflowError: the folder has no transformer's configuration, or one of a class without a plan.
    """
    path = folder / "transformer" / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        class_name = str(config["_class_name"])
    except (OSError, ValueError, KeyError, TypeError):
        raise TwinflowError(
            "There is no transformer to plan for.",
            where=str(path),
            fix="Set base.folder in params.yaml to a diffusers folder, or name a model with --model.",
        ) from None
    if class_name not in FAMILIES:
        raise TwinflowError(
            f"No plan can be made for {class_name}.",
            where=str(path),
            fix=f"Use a model of one of: {', '.join(sorted(FAMILIES))}.",
        )
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    return PlannedModel(str(folder), class_name, kept, 0, str(folder))


def model_on_hub(model: HubModel) -> PlannedModel:
    """A model of the hub; fetches a configuration and no weight.

    Raises:
        TwinflowError: as `model_in` and `fetch_file`.
    """
    path = fetch_file(model, "transformer/config.json")
    return replace(model_in(path.parents[1]), name=str(model), source=model.repository)
