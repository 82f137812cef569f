"""The `finetune` stage: the objective on the encoded data, from the base model to `models/candidate/`."""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

import torch

from twinflow_core.backbones.adapter import save_adapter
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.lora import merge_lora
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.home import state_home
from twinflow_core.params import Params
from twinflow_core.stages.entry import run_stage
from twinflow_core.training.bucket_schedule import require_full_batches
from twinflow_core.training.encoded import EncodedData
from twinflow_core.training.launch import launch
from twinflow_core.training.loop import Training
from twinflow_core.training.ranks import ALONE, Ranks, joined_ranks
from twinflow_core.training.resumption import Resume
from twinflow_core.training.sample_sheet import SampleSheet

BASE, ENCODED = Path("models/base"), Path("data/encoded")
OUTPUT = Path("models/candidate")
LOG = "training_log.csv"


def finetune(params: Params, root: Path) -> None:
    """Train, and save the averaged weights as a stock pipeline with its training log beside it.

    A run that was killed resumes from its last checkpoint, which lies outside the stage's output and is found
    by the hash of params, data and base model.
    """
    key = _run_key(params, root)
    resume = Resume(state_home(root) / "training" / key, key)
    if params.finetune.launch.total == 1:
        _train_alone(params, root, resume)
    else:
        launch(_train_as_rank, (params, root, resume), params.finetune.launch, key, resume.folder)


def _train_alone(params: Params, root: Path, resume: Resume) -> None:
    training = _training(load_backbone(root / BASE), params, root, resume, ALONE)
    training.run()
    # As it is on disk: training may have rounded its own.
    backbone = load_backbone(root / BASE)
    training.collect(backbone.velocity)
    _save(backbone, training, root)


def _train_as_rank(params: Params, root: Path, resume: Resume) -> None:
    """The same on each of many processes; the first one saves. All end together: the last of them would be missed."""
    with joined_ranks() as ranks:
        training = _training(load_backbone(root / BASE), params, root, resume, ranks)
        training.run()
        whole = load_backbone(root / BASE) if ranks.first else None
        training.collect(whole.velocity if whole else None)
        if whole:
            _save(whole, training, root)
        ranks.wait()


def _training(backbone: Backbone, params: Params, root: Path, resume: Resume, ranks: Ranks) -> Training:
    torch.use_deterministic_algorithms(True, warn_only=True)
    validation = EncodedData.load(root / ENCODED, "validation")
    samples = resume.folder / "samples"
    sheet = SampleSheet(backbone, validation, samples, params.finetune.seed, saves=ranks.first)
    train = EncodedData.load(root / ENCODED, "train")
    require_full_batches(train, params.finetune.batch_size)
    # Ranks move their shards themselves.
    device = "cuda" if ranks is ALONE and torch.cuda.is_available() else None
    options = finetune_options(params.finetune, backbone)
    return Training(backbone.velocity, train, options, resume, validation, sheet.draw, ranks, device)


def _save(backbone: Backbone, training: Training, root: Path) -> None:
    """Write the candidate; of a low-rank training the adapter beside the base that it is merged with."""
    with whole_folder(root / OUTPUT) as output:
        if training.options.lora_rank:
            save_adapter(backbone, output)
            merge_lora(backbone.velocity.transformer)
        backbone.save(output)
        _write_log(training.log, output / LOG)


def finetune_options(options: FinetuneParams, backbone: Backbone) -> FinetuneParams:
    """The finetune section, without guidance where the model has it built in; says so.

    Raises:
        TwinflowError: the model's own images are trained on, where guidance alone asks the frozen base.
    """
    if options.guidance == 0 or not backbone.guidance_built_in:
        return options
    if options.data_free:
        raise TwinflowError(
            "The base model was distilled with guidance, so data_free has no teacher: its guided target is not asked.",
            where="params.yaml: finetune.data_free",
            fix="Set finetune.data_free to false, or take a base without guidance built in.",
        )
    print("The base model was distilled with guidance, so finetune.guidance is taken as 0.", file=sys.stderr)
    return options.model_copy(update={"guidance": 0.0})


def _run_key(params: Params, root: Path) -> str:
    """Hash of all that the result depends on: the section of params and every input byte.

    The number of processes is none of it: a run goes on with another.
    """
    digest = hashlib.sha256(params.finetune.model_dump_json(exclude={"launch"}).encode())
    for folder in (root / ENCODED, root / BASE):
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
