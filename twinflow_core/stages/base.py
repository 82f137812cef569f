"""The `base` stage: the many-step model of `base.folder`, copied to `models/base/`."""

from __future__ import annotations

import shutil
from pathlib import Path

from twinflow_core.backbones.loading import pipeline_class
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.errors import TwinflowError
from twinflow_core.params import Params
from twinflow_core.stages.entry import run_stage

OUTPUT = Path("models/base")


def base(params: Params, root: Path) -> None:
    """Copy the base model's folder.

    Raises:
        TwinflowError: the folder is no pipeline of a supported family, or the hub is asked for.
    """
    if params.base.hub is not None:
        raise TwinflowError(
            "Loading from a hub is not supported yet.",
            where="params.yaml: base.hub",
            fix="Download the model to a folder and set base.folder.",
        )
    source = root / params.base.folder
    pipeline_class(source)
    with whole_folder(root / OUTPUT) as output:
        shutil.copytree(source, output, dirs_exist_ok=True)


if __name__ == "__main__":
    run_stage(base)
