"""A tree in which the finetune stage can run, on a tiny model, without the stages before it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from tests.training.test_loop import data_of
from twinflow_core.backbones.loading import load_backbone

REPOSITORY = Path(__file__).parents[2]


def build_tree(root: Path, pipeline: Path, **finetune: Any) -> Path:
    """params.yaml with these options of the finetune section, models/base and data/encoded."""
    shutil.copytree(pipeline, root / "models/base")
    data = data_of(load_backbone(pipeline))
    encoded = root / "data/encoded"
    encoded.mkdir(parents=True)
    for split in ("train", "validation"):
        shard = {"latents": data.latents, "caption": data.caption, **data.conditioning[slice(None)].tensors()}
        save_file(shard, encoded / f"{split}-00000.safetensors")
    set_options(root, **finetune)
    return root


def set_options(root: Path, **finetune: Any) -> None:
    """Write params.yaml anew, with these options of the finetune section."""
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text(encoding="utf-8"))
    document["finetune"] |= finetune
    (root / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
