"""Published models by name, as the configurations of their networks; and the one in a diffusers folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from twinflow_core.backbones.plain_folder import INDEX, LIBRARIES
from twinflow_core.errors import TwinflowError
from twinflow_core.hub.fetch import fetch_configs
from twinflow_core.hub.pinned import HubModel
from twinflow_core.plan.families import FAMILIES

MODELS = files("twinflow_core.plan") / "models"
PARTS = files("twinflow_core.plan") / "parts"
SUFFIX = ".json"


@dataclass(frozen=True)
class Part:
    """A network beside the transformer: a text encoder or the VAE.

    Attributes:
        name: as the pipeline calls it.
        library: of its class, diffusers or transformers.
        class_name: its class.
        config: its configuration.
    """

    name: str
    library: str
    class_name: str
    config: dict[str, Any]


@dataclass(frozen=True)
class PlannedModel:
    """What is planned for.

    Attributes:
        name: its name here, or its folder.
        class_name: the transformer's class in diffusers.
        config: the transformer's configuration.
        resolution: side of the images it is used at, in pixels; 0 where nothing says so.
        source: where the configuration is from.
        parts: the networks beside the transformer, as far as they are known.
    """

    name: str
    class_name: str
    config: dict[str, Any]
    resolution: int
    source: str
    parts: tuple[Part, ...] = ()


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
    parts = tuple(_published_part(part, shared) for part, shared in told["parts"].items())
    return PlannedModel(name, told["class"], told["config"], told["resolution"], told["repository"], parts)


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
    return PlannedModel(str(folder), class_name, _without_notes(config), 0, str(folder), _parts_in(folder))


def model_on_hub(model: HubModel) -> PlannedModel:
    """A model of the hub; fetches configurations and no weight.

    Raises:
        TwinflowError: as `model_in` and `fetch_configs`.
    """
    return replace(model_in(fetch_configs(model)), name=str(model), source=model.repository)


def _published_part(name: str, shared: str) -> Part:
    """A part that several models share is described once, in a file of its own."""
    told = json.loads((PARTS / f"{shared}{SUFFIX}").read_text(encoding="utf-8"))
    return Part(name, told["library"], told["class"], told["config"])


def _parts_in(folder: Path) -> tuple[Part, ...]:
    """The networks that the folder's index names and describes, but for the transformer."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        found = [
            Part(name, entry[0], entry[1], _without_notes(json.loads(path.read_text(encoding="utf-8"))))
            for name, entry in index.items()
            if name != "transformer" and (path := folder / name / "config.json").is_file()
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ()
    return tuple(part for part in found if part.library in LIBRARIES)


def _without_notes(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what the library noted in it."""
    return {key: value for key, value in config.items() if not key.startswith("_")}
