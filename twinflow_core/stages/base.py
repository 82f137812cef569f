"""The `base` stage: the many-step model of `base.folder`, or of `base.hub` at `base.revision`, as `models/base/`."""

from __future__ import annotations

import shutil
from pathlib import Path

from twinflow_core.backbones.plain_folder import INDEX, read_index
from twinflow_core.backbones.supported import named_class, pipeline_class
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.hub.fetch import fetch_file, fetch_pipeline
from twinflow_core.hub.pinned import pinned_model
from twinflow_core.params import Params
from twinflow_core.stages.entry import run_stage

OUTPUT = Path("models/base")


def base(params: Params, root: Path) -> None:
    """Copy the base model's folder, or fetch the model from the hub.

    Raises:
        TwinflowError: it is no pipeline of a supported family, or is not safe to load; of the hub also what
            `pinned_model` and `fetch_pipeline` refuse.
    """
    if params.base.hub is not None and params.base.revision is not None:
        _fetch(params.base.hub, params.base.revision, root / OUTPUT)
        return
    source = root / params.base.folder
    pipeline_class(source)
    with whole_folder(root / OUTPUT) as output:
        shutil.copytree(source, output, dirs_exist_ok=True)


def _fetch(repository: str, revision: str, target: Path) -> None:
    model = pinned_model(repository, revision)
    described = fetch_file(model, INDEX).parent
    # Before the weights, which may be tens of gigabytes.
    named_class(described)
    with whole_folder(target) as output:
        fetch_pipeline(model, read_index(described), output)
        pipeline_class(output)


if __name__ == "__main__":
    run_stage(base)
