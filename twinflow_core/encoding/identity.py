"""What a latent and a prompt embedding are made by, as hashes: weights, settings, code and libraries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from twinflow_core.encoding.shard_files import KEY_BYTES
from twinflow_core.image_size import ImageSize

DENOISERS = frozenset({"transformer", "unet"})
# Parts of a pipeline that no prompt passes through.
_NOT_TEXT = DENOISERS | {"vae", "scheduler", "target_time"}
_CORE = Path(__file__).parents[1]
_CODE = ("backbones", "encoding", "data/decode.py")
_LIBRARIES = ("diffusers", "numpy", "pillow", "torch", "transformers")


@dataclass(frozen=True)
class Encoders:
    """Hashes of all but the row itself that a latent and a prompt embedding depend on."""

    image: bytes
    text: bytes

    def image_key(self, sha256: str, size: ImageSize) -> bytes:
        """The 16-byte key of an image's latents, by the SHA-256 of its encoded bytes and the size it is fitted to."""
        return _digest(self.image, sha256.encode(), str(size).encode())[:KEY_BYTES]

    def text_key(self, caption: str) -> bytes:
        """The 16-byte key of a caption's embeddings."""
        return _digest(self.text, caption.encode())[:KEY_BYTES]


def identify_encoders(base: Path, batch_size: int, device: str) -> Encoders:
    """Hash the base model's VAE and text encoders with the settings that they are used with.

    The batch size counts, because another one may round otherwise; so does this project's own code.

    Args:
        base: models/base.
        batch_size: rows encoded at a time.
        device: the accelerator's name, or the number of the processor's threads.
    """
    shared = [f"{name} {version(name)}".encode() for name in _LIBRARIES]
    shared += [f"batch {batch_size} on {device}".encode()]
    for place in _CODE:
        path = _CORE / place
        shared += [file.read_bytes() for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
    parts = sorted(path for path in base.iterdir() if path.is_dir())
    image = [_folder_digest(part) for part in parts if part.name == "vae"]
    text = [_folder_digest(part) for part in parts if part.name not in _NOT_TEXT]
    index = (base / "model_index.json").read_bytes()
    return Encoders(
        image=_digest(*shared, index, *image),
        text=_digest(*shared, index, *text),
    )


def _folder_digest(folder: Path) -> bytes:
    """SHA-256 of a folder's files and their names."""
    pieces = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            pieces += [path.relative_to(folder.parent).as_posix().encode(), content]
    return _digest(*pieces)


def _digest(*pieces: bytes) -> bytes:
    total = hashlib.sha256()
    for piece in pieces:
        total.update(len(piece).to_bytes(8, "little") + piece)
    return total.digest()
