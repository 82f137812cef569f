"""How many parameters depend on time alone, and so become constants of a few-step graph, by model family.

    python -m benchmarks.folding

Each family's network at its published size (diffusers' defaults but for SD3, whose are smaller), on torch's meta
device: no weights, no memory.
Where pooled text enters the modulation, only the time MLP folds.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import diffusers
import torch

RESULT = Path(__file__).parent / "results/folding.json"


@dataclass(frozen=True)
class Family:
    """A network class of diffusers, and the parameters of it that see nothing but time (and constant guidance)."""

    name: str
    network: str
    time_only: str
    size: dict[str, int] = field(default_factory=dict)


SD3_MEDIUM = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
FAMILIES = (
    Family("SD3-medium", "SD3Transformer2DModel", r"time_text_embed\.timestep_embedder\.", SD3_MEDIUM),
    Family("FLUX.1", "FluxTransformer2DModel", r"time_text_embed\.(timestep|guidance)_embedder\."),
    Family(
        "FLUX.2", "Flux2Transformer2DModel", r"(time_guidance_embed|\w+_modulation\w*)\.|norm_out\.linear\."
    ),
    Family(
        "Qwen-Image",
        "QwenImageTransformer2DModel",
        r"time_text_embed\.|.*\.(img|txt)_mod\.|norm_out\.linear\.",
    ),
    Family("Z-Image", "ZImageTransformer2DModel", r"t_embedder\.|.*adaLN_modulation\."),
    Family("Sana", "SanaTransformer2DModel", r"time_embed\."),
)


def measure(family: Family) -> dict[str, object]:
    """Parameters in all, those that fold, and their share."""
    with torch.device("meta"):
        network = getattr(diffusers, family.network)(**family.size)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    folded = sum(size for name, size in sizes.items() if re.match(family.time_only, name))
    total = sum(sizes.values())
    return {"family": family.name, "parameters": total, "folded": folded, "share": round(folded / total, 4)}


def main() -> None:
    """Print a table, write benchmarks/results/folding.json."""
    rows = [measure(family) for family in FAMILIES]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        json.dumps({"diffusers": diffusers.__version__, "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )
    print("| family | parameters | fold into constants | share |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['family']} | {row['parameters']:,} | {row['folded']:,} | {row['share']:.1%} |")


if __name__ == "__main__":
    main()
