"""The adapter as stock diffusers reads it, and the merge with the base as it was."""

from pathlib import Path

import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file

from twinflow_core.backbones.adapter import save_adapter
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.backbones.lora import add_lora, is_lora, merge_lora
from twinflow_core.backbones.quantized import quantize_blocks
from twinflow_core.backbones.short_weights import shorten

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def image(pipeline: StableDiffusion3Pipeline) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    return torch.from_numpy(
        pipeline(
            "a red circle",
            num_inference_steps=2,
            guidance_scale=0.0,
            max_sequence_length=1,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images
    )


def stock(folder: Path) -> StableDiffusion3Pipeline:
    return StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)


def test_stock_diffusers_loads_it_and_the_merge_leaves_the_bases_own_weights(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    learnt = load_backbone(tiny_pipeline).velocity
    quantize_blocks(learnt.transformer, "nf4")
    add_lora(learnt.transformer, 4, seed=0)
    shorten(learnt)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in learnt.named_parameters():
            if "lora_B" in name or name.startswith("target_time"):
                parameter.normal_(std=0.1, generator=draws)

    fresh = load_backbone(tiny_pipeline)
    add_lora(fresh.velocity.transformer, 4, seed=0)
    terms = {
        name: value for name, value in learnt.state_dict().items() if is_lora(name) or "target_time" in name
    }
    fresh.velocity.load_state_dict(terms, strict=False)
    save_adapter(fresh, tmp_path)
    merge_lora(fresh.velocity.transformer)
    fresh.save(tmp_path / "merged")

    saved = load_file(tmp_path / "lora/target_time.safetensors")
    assert all(saved[name].equal(value) for name, value in learnt.target_time.state_dict().items())
    before, after = load_file(tiny_pipeline / WEIGHTS), load_file(tmp_path / "merged" / WEIGHTS)
    layer = "transformer_blocks.0.attn.to_q"
    a, b = (terms[f"transformer.{layer}.lora_{side}.default.weight"] for side in "AB")
    assert torch.allclose(after[f"{layer}.weight"], before[f"{layer}.weight"] + b @ a, atol=1e-6)
    assert after["proj_out.weight"].equal(before["proj_out.weight"])

    adapted = stock(tiny_pipeline)
    adapted.load_lora_weights(tmp_path / "lora")
    merged = image(stock(tmp_path / "merged"))
    assert torch.allclose(image(adapted), merged, atol=1e-4)
    assert not torch.allclose(image(stock(tiny_pipeline)), merged, atol=1e-2)
