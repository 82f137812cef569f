"""What a package was made of and with: never when, where or by whom, so that equal inputs give equal bytes."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from twinflow_core.backbones.backbone import Backbone

LIBRARIES = ("torch", "diffusers", "transformers", "onnx", "onnxscript")


def provenance(backbone: Backbone) -> dict[str, str]:
    """The pipeline's class, SHA-256 of the denoiser's names, shapes and weights, and the libraries' versions."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.pipeline.transformer.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "pipeline": type(backbone.pipeline).__name__,
        "denoiser_sha256": digest.hexdigest(),
        **{name: version(name) for name in LIBRARIES},
    }
