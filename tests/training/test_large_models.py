"""The options for large models, through the loop on a real, tiny SD3: each learns, and resumes to the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.training.ranks_tree import build_tree
from tests.training.test_loop import STEPS, data_of, train, weights
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.params import load_params
from twinflow_core.stages.finetune import finetune
from twinflow_core.training.loop import Resume, Training

# One evaluation of the network a step.
SHORT: dict[str, Any] = {"objective": "flow_matching", "guidance": 0.0, "batch_size": 2}
LEARN = STEPS.model_copy(update=SHORT | {"learning_rate": 1e-2})
LORA = {"lora_rank": 4}
KINDS: dict[str, dict[str, Any]] = {
    "8-bit": {"optimizer": "adamw_8bit"},
    "short": {"weights": "bfloat16"},
    "short-8-bit": {"weights": "bfloat16", "optimizer": "adamw_8bit"},
    "short-offload": {"weights": "bfloat16", "optimizer": "adamw_offload"},
    "lora-int8": LORA | {"quantized_base": "int8"},
    "lora-nf4-short": LORA
    | {
        "quantized_base": "nf4",
        "weights": "bfloat16",
        "optimizer": "adamw_8bit",
        "gradient_checkpointing": True,
    },
}


def made(folder: Path, options: FinetuneParams, state: Path) -> Training:
    backbone = load_backbone(folder)
    return Training(backbone.velocity, data_of(backbone, rows=4), options, Resume(state, "k"))


def loss_of_first_batch(training: Training) -> Tensor:
    (rows,) = training.rows(0)
    return training.objective.loss(training.networks, rows, 0).loss


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls_on_one_batch(kind: str, tiny_pipeline: Path, tmp_path: Path) -> None:
    training = made(tiny_pipeline, LEARN.model_copy(update=KINDS[kind]), tmp_path)
    # The same rows and draws every time.
    losses = [training._step(0)["loss"] for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["short-8-bit", "lora-nf4-short"])
def test_a_killed_run_resumes_to_the_same_bits(kind: str, tiny_pipeline: Path, tmp_path: Path) -> None:
    options = STEPS.model_copy(update=SHORT | KINDS[kind] | {"steps": 3, "log_every": 3})
    whole = train(tiny_pipeline, options, tmp_path / "whole")
    backbone = load_backbone(tiny_pipeline)
    killed = Training(backbone.velocity, data_of(backbone), options, Resume(tmp_path / "killed", "k"))
    killed._step(0)
    killed.finished_steps = 1
    killed._save()
    resumed = train(tiny_pipeline, options, tmp_path / "killed")
    assert weights(resumed).equal(weights(whole))


def test_checkpointing_changes_no_bit_and_keeps_fewer_bytes(tiny_pipeline: Path, tmp_path: Path) -> None:
    kept: list[int] = []
    gradients: list[list[Tensor]] = []
    for checkpointing in (False, True):
        options = LEARN.model_copy(update={"gradient_checkpointing": checkpointing})
        training = made(tiny_pipeline, options, tmp_path)
        held: dict[int, int] = {}

        def keep(tensor: Tensor, held: dict[int, int] = held) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = loss_of_first_batch(training)
        own = {parameter.untyped_storage().data_ptr() for parameter in training.online.parameters()}
        kept.append(sum(size for address, size in held.items() if address not in own))
        loss.backward()
        gradients.append([p.grad for p in training.online.parameters() if p.grad is not None])
    assert kept[1] < 0.4 * kept[0]
    assert all(mine.equal(other) for mine, other in zip(*gradients, strict=True))


def test_bytes_of_the_networks_are_what_the_docs_say(tiny_pipeline: Path, tmp_path: Path) -> None:
    plain = made(tiny_pipeline, LEARN, tmp_path)
    transformer = sum(p.numel() for p in plain.online.transformer.parameters())
    short = made(tiny_pipeline, LEARN.model_copy(update=KINDS["short"]), tmp_path)
    assert of_parameters(short.online.transformer) == 2 * transformer
    assert of_parameters(short.averaged.transformer) == 4 * transformer
    lora = made(tiny_pipeline, LEARN.model_copy(update=LORA | {"real_velocity": "base"}), tmp_path)
    learnt = sum(p.numel() for p in lora.online.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in lora.online.parameters() if not p.requires_grad)
    assert lora.base is not None
    together = {p.data_ptr(): p.nbytes for n in (lora.online, lora.averaged, lora.base) for p in tensors(n)}
    buffers = sum(buffer.nbytes for buffer in lora.online.buffers())
    target_time = of_parameters(lora.base.target_time)
    assert sum(together.values()) == 4 * (frozen + 2 * learnt) + buffers + target_time


def test_what_is_not_trained_is_saved_as_it_was(tiny_pipeline: Path, tmp_path: Path) -> None:
    build_tree(tmp_path, tiny_pipeline, steps=1, weights="bfloat16")
    finetune(load_params(tmp_path / "params.yaml"), tmp_path)
    file = "transformer/diffusion_pytorch_model.safetensors"
    before, after = (load_file(folder / file) for folder in (tiny_pipeline, tmp_path / "models/candidate"))
    assert after["pos_embed.pos_embed"].equal(before["pos_embed.pos_embed"])
    assert not after["proj_out.weight"].equal(before["proj_out.weight"])


def of_parameters(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weights": "bfloat16", "precision": "float32"}, "set precision"),
        ({"quantized_base": "nf4"}, "lora_rank"),
        (
            {**LORA, "quantized_base": "nf4", "objective": "vsd", "fake_score": {"weights": "full"}},
            "set it to lora",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneParams.model_validate(STEPS.model_dump() | wrong)
