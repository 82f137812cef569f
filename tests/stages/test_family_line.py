"""Two keys of params.yaml change the model: the line from images to a judged candidate, on Qwen-Image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from diffusers import QwenImagePipeline

from tests.backbones.tiny_qwen_image import build_tiny_qwen_image
from twinflow_core.params import load_params
from twinflow_core.stages.base import base
from twinflow_core.stages.encode import encode
from twinflow_core.stages.evaluate import evaluate
from twinflow_core.stages.finetune import finetune
from twinflow_core.stages.prepare import prepare
from twinflow_core.stages.raw import raw
from twinflow_core.stages.reference import reference
from twinflow_core.training.encoded import EncodedData

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_another_family_goes_from_images_to_a_judged_candidate(tmp_path: Path) -> None:
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text())
    document["base"]["folder"] = str(build_tiny_qwen_image(tmp_path / "qwen"))
    document["data"] |= {"source": str(REPOSITORY / "tests/tiny_shapes"), "resolution": 16}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    params = load_params(tmp_path / "params.yaml")
    for stage in (raw, prepare, base, encode, reference, finetune, evaluate):
        stage(params, tmp_path)
    data = EncodedData.load(tmp_path / "data/encoded", "train")
    assert data.buckets[0].shape == (4, 2, 2)
    mask = data.conditioning[slice(None)].mask
    assert mask is not None
    assert bool(mask[:, -1].any())
    assert not bool(mask.all())
    metrics = json.loads((tmp_path / "eval/candidate/metrics.json").read_text())
    assert metrics["candidate"].keys() == {"nfe1", "nfe2", "many"}
    assert metrics["candidate"]["nfe1"]["score"] is not None
    assert QwenImagePipeline.from_pretrained(tmp_path / "models/candidate").transformer.config.num_layers == 2
