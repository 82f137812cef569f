"""The `finetune` stage: the objective on the encoded data, from the base model to `models/candidate/`."""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

import torch

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.lora import merge_lora
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.home import state_home
from twinflow_core.params import Params
from twinflow_core.stages.entry import run_stage
from twinflow_core.training.encoded import EncodedData
from twinflow_core.training.loop import Resume, Training
from twinflow_core.training.sample_sheet import SampleSheet

OUTPUT = Path("models/candidate")
LOG = "training_log.csv"


def finetune(params: Params, root: Path) -> None:
    """Train, and save the averaged weights as a stock pipeline with its training log beside it.

    A run that was killed resumes from its last checkpoint, which lies outside the stage's output and is found
    by the hash of params, data and base model.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    backbone = load_backbone(root / "models/base")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    key = _run_key(params, root)
    resume = Resume(state_home(root) / "training" / key, key)
    validation = EncodedData.load(root / "data/encoded", "validation")
    sheet = SampleSheet(backbone, validation, resume.folder / "samples", params.finetune.seed)
    training = Training(
        backbone.velocity.to(device),
        EncodedData.load(root / "data/encoded", "train"),
        finetune_options(params.finetune, backbone),
        resume,
        validation,
        sheet.draw,
    )
    averaged = training.run()
    backbone.velocity.load_state_dict(averaged.state_dict())
    backbone.velocity.to("cpu")
    merge_lora(backbone.velocity.transformer)
    with whole_folder(root / OUTPUT) as output:
        backbone.save(output)
        _write_log(training.log, output / LOG)


def finetune_options(options: FinetuneParams, backbone: Backbone) -> FinetuneParams:
    """The finetune section, without guidance where the model has it built in; says so."""
    if options.guidance == 0 or not backbone.guidance_built_in:
        return options
    print("The base model was distilled with guidance, so finetune.guidance is taken as 0.", file=sys.stderr)
    return options.model_copy(update={"guidance": 0.0})


def _run_key(params: Params, root: Path) -> str:
    """Hash of all that the result depends on: the section of params and every input byte."""
    digest = hashlib.sha256(params.finetune.model_dump_json().encode())
    for folder in (root / "data/encoded", root / "models/base"):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                digest.update(path.relative_to(root).as_posix().encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _write_log(log: list[dict[str, float]], path: Path) -> None:
    """The metrics as CSV, for `dvc plots` and the report; digits beyond float32's are noise."""
    names = list(dict.fromkeys(name for row in log for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([f"{row[name]:.7g}" if name in row else "" for name in names] for row in log)


if __name__ == "__main__":
    run_stage(finetune)
