"""What the published text encoders take in a package, by `export.text_precision`.

    python -m benchmarks.text_sizes

Each encoder at its published size, called as its family reads it, on torch's meta device: no weights, no memory. The
weights that a text graph holds are those that its outputs have a gradient of: a language model's last layers, its head
and its eyes are not among them where nothing reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.result_file import tell_result
from twinflow_core.export.precision import BITS, BLOCK, NARROW
from twinflow_core.plan.encode_needs import _build, _prompts
from twinflow_core.plan.named_models import _published_part

RESULT = Path(__file__).parent / "results/text_sizes.json"
TOKENS = 128
Reader = Callable[[Any], Sequence[Tensor]]


def _states(*layers: int) -> Reader:
    return lambda output: [output.hidden_states[layer] for layer in layers]


def _last(output: Any) -> Sequence[Tensor]:
    return [output.last_hidden_state]


def _clip(output: Any) -> Sequence[Tensor]:
    return [output.text_embeds, output.hidden_states[-2]]


# What is read of each: `export.readings` and `export.clip_and_t5`.
ENCODERS: dict[str, tuple[str, Reader]] = {
    "clip-l": ("SD3", _clip),
    "clip-g": ("SD3", _clip),
    "t5-xxl": ("SD3, FLUX.1", _last),
    "gemma-2-2b": ("Sana", _last),
    "qwen2.5-vl-7b": ("Qwen-Image", _states(-1)),
    "qwen3-4b": ("Z-Image", _states(-2)),
    "qwen3-4b-lm": ("FLUX.2 klein 4B", _states(9, 18, 27)),
    "qwen3-8b-lm": ("FLUX.2 klein 9B", _states(9, 18, 27)),
    "mistral-small-3.2-24b": ("FLUX.2 dev", _states(10, 20, 30)),
}


def measure(name: str) -> dict[str, object]:
    """Parameters of the text graph, and its weights in gigabytes (10^9 bytes) in each precision."""
    family, read = ENCODERS[name]
    network = _build(_published_part(name, name))
    outputs = read(network(**_prompts(network, 1, TOKENS)))
    sum(each.sum() for each in outputs).backward()  # type: ignore[union-attr]
    products, tokens, others = 0, 0, 0
    seen: set[Tensor] = set()
    for module_name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            if parameter.grad is None or parameter in seen:
                continue
            seen.add(parameter)
            if isinstance(module, nn.Linear) and _is_product(module_name, parameter):
                products += parameter.numel()
            elif isinstance(module, nn.Embedding) and len(parameter) > NARROW * NARROW:
                tokens += parameter.numel()
            else:
                others += parameter.numel()
    bytes_of = {
        "fp32": 4 * (products + tokens + others),
        "fp16": 2 * (products + tokens) + 4 * others,
        # A float32 scale for each block of weights.
        **{each: products * (bits / 8 + 4 / BLOCK) + 2 * tokens + 4 * others for each, bits in BITS.items()},
    }
    return {
        "encoder": name,
        "family": family,
        "parameters": products + tokens + others,
        **{precision: round(size / 1e9, 2) for precision, size in bytes_of.items()},
    }


def _is_product(name: str, parameter: Tensor) -> bool:
    """Whether fewer bits take it: pooled text is a product of single rows, which keep their weights."""
    return parameter.ndim == 2 and min(parameter.shape) >= NARROW and not name.endswith("text_projection")


def main() -> None:
    """Print a table, write benchmarks/results/text_sizes.json."""
    rows = [measure(name) for name in ENCODERS]
    tell_result({"torch": torch.__version__, "rows": rows}, RESULT)
    print("| encoder | family | parameters | fp32 | fp16 | int8 | int4 |\n|---|---|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


if __name__ == "__main__":
    main()
