"""The `encode` stage: latents and prompt embeddings, made once: training runs no VAE and no text encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.data.decode import decode_rgb, fit_square
from twinflow_core.data.shards import count_rows, read_rows
from twinflow_core.data.splits import SPLITS, Split
from twinflow_core.data.whole_folder import whole_folder
from twinflow_core.params import Params
from twinflow_core.progress import Reporter
from twinflow_core.stages.entry import run_stage

OUTPUT = Path("data/encoded")


def encode(params: Params, root: Path) -> None:
    """Encode both splits of data/prepared with the models of models/base.

    Raises:
        TwinflowError: the base model does not make images of data.resolution.
    """
    backbone = load_backbone(root / "models/base", params.data.resolution)
    numbers: dict[str, int] = {"": 0}
    with whole_folder(root / OUTPUT) as output:
        for split in SPLITS:
            rows = _encode_images(backbone, root / "data/prepared", split, params, numbers)
            save_file(rows, output / f"{split}.safetensors")
        _say_what_is_cut(backbone, list(numbers))
        conditioning = _encode_captions(backbone, list(numbers), params.encode.batch_size)
        save_file(conditioning.tensors(), output / "captions.safetensors")
        (output / "captions.json").write_text(json.dumps(list(numbers), indent=0) + "\n", encoding="utf-8")


def _encode_images(
    backbone: Backbone, prepared: Path, split: Split, params: Params, numbers: dict[str, int]
) -> dict[str, Tensor]:
    """Latents and caption numbers of a split; captions not met before get the next number."""
    latents: list[Tensor] = []
    captions: list[int] = []
    pixels: list[np.ndarray] = []
    total = count_rows(prepared, split)
    with Reporter(f"encode {split} images", total) as reporter:
        for done, row in enumerate(read_rows(prepared, split), start=1):
            captions.append(numbers.setdefault(row.caption, len(numbers)))
            pixels.append(fit_square(decode_rgb(row.image), params.data.resolution))
            if len(pixels) == params.encode.batch_size or done == total:
                latents.append(backbone.encode_images(to_signed(np.stack(pixels))))
                pixels.clear()
                reporter.update(done)
    return {"latents": torch.cat(latents).contiguous(), "caption": torch.tensor(captions)}


def _encode_captions(backbone: Backbone, captions: list[str], batch_size: int) -> Conditioning:
    parts: list[Conditioning] = []
    with Reporter("encode captions", len(captions)) as reporter:
        for first in range(0, len(captions), batch_size):
            parts.append(backbone.encode_prompts(captions[first : first + batch_size]))
            reporter.update(min(first + batch_size, len(captions)))
    return Conditioning.cat(parts)


def _say_what_is_cut(backbone: Backbone, captions: list[str]) -> None:
    cut = backbone.too_long(captions)
    if cut:
        read = backbone.max_tokens
        print(f"{cut} of {len(captions)} captions are cut to the {read} tokens that the text encoder reads.")


def to_signed(images: np.ndarray) -> Tensor:
    """uint8 [B, H, W, 3] as float32 [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


if __name__ == "__main__":
    run_stage(encode)
