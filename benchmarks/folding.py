"""How many parameters depend on time alone, and so become constants of a few-step graph, by model family.

    python -m benchmarks.folding

Each family's network at its published size (diffusers' defaults but for SD3, whose are smaller), on torch's meta
device: no weights, no memory. What folds is what `export.families` says; a test holds that against real graphs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import diffusers
import torch

from twinflow_core.export.families import FAMILIES

RESULT = Path(__file__).parent / "results/folding.json"


@dataclass(frozen=True)
class Published:
    """A network class of diffusers at its published size, and which of the exported families it belongs to."""

    name: str
    network: str
    family: str
    size: dict[str, int] = field(default_factory=dict)


SD3_MEDIUM = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
PUBLISHED = (
    Published("SD3-medium", "SD3Transformer2DModel", "sd3", SD3_MEDIUM),
    Published("FLUX.1", "FluxTransformer2DModel", "flux"),
    Published("FLUX.2", "Flux2Transformer2DModel", "flux2"),
    Published("Qwen-Image", "QwenImageTransformer2DModel", "qwen-image"),
    Published("Z-Image", "ZImageTransformer2DModel", "z-image"),
    Published("Sana", "SanaTransformer2DModel", "sana"),
)


def measure(model: Published) -> dict[str, object]:
    """Parameters in all, those that fold, and their share."""
    with torch.device("meta"):
        network = getattr(diffusers, model.network)(**model.size)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    folded = sum(size for name, size in sizes.items() if re.match(FAMILIES[model.family].folds, name))
    total = sum(sizes.values())
    return {"family": model.name, "parameters": total, "folded": folded, "share": round(folded / total, 4)}


def main() -> None:
    """Print a table, write benchmarks/results/folding.json."""
    rows = [measure(model) for model in PUBLISHED]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        json.dumps({"diffusers": diffusers.__version__, "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )
    print("| family | parameters | fold into constants | share |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['family']} | {row['parameters']:,} | {row['folded']:,} | {row['share']:.1%} |")


if __name__ == "__main__":
    main()
