"""The encoded dataset as training reads it: latents and the conditioning of their captions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from twinflow_core.backbones.conditioning import Conditioning
from twinflow_core.errors import TwinflowError

EMPTY_CAPTION = 0


@dataclass(frozen=True)
class EncodedData:
    """Latents [N, C, H, W], caption number of each row [N], conditioning of the K captions (0 is empty)."""

    latents: Tensor
    caption: Tensor
    conditioning: Conditioning

    @classmethod
    def load(cls, folder: Path, split: str) -> EncodedData:
        """Read what the encode stage wrote.

        Args:
            folder: data/encoded.
            split: `train` or `validation`.

        Raises:
            TwinflowError: a file is missing or does not fit the others.
        """
        try:
            rows = load_file(folder / f"{split}.safetensors")
            captions = load_file(folder / "captions.safetensors")
            known = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise TwinflowError(
                "The encoded data are missing.",
                where=str(error.filename or folder),
                fix="Run the encode stage.",
            ) from None
        except (SafetensorError, ValueError, OSError) as error:
            raise TwinflowError(
                f"The encoded data are damaged: {error}",
                where=str(folder),
                fix="Delete the folder and run the encode stage again.",
            ) from None
        conditioning = Conditioning.of(captions)
        if len(known) != len(conditioning) or int(rows["caption"].max()) >= len(known):
            raise TwinflowError(
                "The encoded captions do not fit the encoded rows.",
                where=str(folder),
                fix="Delete the folder and run the encode stage again.",
            )
        return cls(rows["latents"], rows["caption"], conditioning)

    @property
    def empty(self) -> Conditioning:
        """The conditioning of the empty caption, one row."""
        return self.conditioning[EMPTY_CAPTION : EMPTY_CAPTION + 1]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one row."""
        _, channels, height, width = self.latents.shape
        return (channels, height, width)

    def __len__(self) -> int:
        return len(self.latents)
