"""The table of docs/plan.md: `python -m benchmarks.plan_table` prints it, from the plans that `twinflow plan` makes."""

from __future__ import annotations

from pathlib import Path

from twinflow_core.image_size import ImageSize
from twinflow_core.params import load_params
from twinflow_core.plan.document import setting_words
from twinflow_core.plan.gpus import GIB, find_gpu
from twinflow_core.plan.named_models import named_model
from twinflow_core.plan.plan import Outlook, make_plan
from twinflow_core.plan.setting import setting_of

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("sana-1.6b", "sd3.5-medium", "z-image", "flux.1-dev", "qwen-image")
GPUS = ("rtx4090-24", "h100-80")
BATCH = 16
SIZE = ImageSize(1024, 1024)
RANKS = (0, 64)
# A model of this size gives the velocity of its fakes itself.
ONE_NETWORK = {
    "fake_velocity": "online",
    "one_step_target": "recursive",
    "shares": {"one_step": 2.0, "near": 0.25, "any": 0.5, "fake": 1.5},
}


def print_table() -> None:
    """One line for each model, kind of training and GPU: the cheapest setting that fits."""
    finetune = load_params(ROOT / "params.yaml").finetune.model_copy(update=ONE_NETWORK)
    print("| model | trained | GPU | as asked | the cheapest that fits | GiB | images a second |")
    print("|---|---|---|---|---|---|---|")
    for name in MODELS:
        for rank in RANKS:
            options = finetune.model_copy(update={"batch_size": BATCH, "lora_rank": rank})
            for gpu in GPUS:
                plan = make_plan(named_model(name), options, setting_of(options), find_gpu(gpu), SIZE)
                told = _cells(plan.cheapest) if plan.cheapest else ("nothing", "", "")
                kind = f"LoRA {rank}" if rank else "all"
                asked = f"{plan.asked.memory.total / GIB:.0f} GiB"
                print(f"| {' | '.join((name, kind, gpu, asked, *told))} |", flush=True)


def _cells(outlook: Outlook) -> tuple[str, str, str]:
    slow, fast = outlook.duration.images_per_second
    return setting_words(outlook.setting), f"{outlook.memory.total / GIB:.1f}", f"{slow:.2g} to {fast:.2g}"


if __name__ == "__main__":
    print_table()
