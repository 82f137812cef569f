"""Which model families there are, told apart by a folder's index; light, for those who load no model."""

from __future__ import annotations

from pathlib import Path

from twinflow_core.backbones.plain_folder import INDEX, read_index, require_known_libraries, require_plain
from twinflow_core.errors import TwinflowError

# The classes that `model_index.json` names, in the order of the alphabet.
SUPPORTED = (
    "Flux2KleinPipeline",
    "Flux2Pipeline",
    "FluxPipeline",
    "QwenImagePipeline",
    "SanaPipeline",
    "StableDiffusion3Pipeline",
    "ZImagePipeline",
)


def pipeline_class(folder: Path) -> str:
    """The pipeline's class name as `model_index.json` gives it.

    Raises:
        TwinflowError: no diffusers folder there, a family that is not supported, or one that is not safe to
            load (see `require_plain`).
    """
    name = named_class(folder)
    require_plain(folder)
    return name


def named_class(folder: Path) -> str:
    """As `pipeline_class`, by `model_index.json` alone: the other files need not be there yet."""
    name: str = read_index(folder)["_class_name"]
    if name not in SUPPORTED:
        raise TwinflowError(
            f"Models of class {name} are not supported.",
            where=str(folder / INDEX),
            fix=f"Use one of: {', '.join(SUPPORTED)}.",
        )
    require_known_libraries(folder)
    return name
