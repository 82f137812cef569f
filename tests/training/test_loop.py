"""The loop on a real, tiny SD3: it learns, resumes to the same bits, and stops with a cause."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.tiny_pipeline import build_tiny_pipeline
from tests.training.test_twinflow_objective import OPTIONS
from twinflow_core.backbones.backbone import Backbone
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training.encoded import EncodedData
from twinflow_core.training.execution import Twins, make_networks
from twinflow_core.training.loop import Resume, Training
from twinflow_core.training.ranks import ALONE
from twinflow_core.training.roles import Role
from twinflow_core.training.sample_sheet import SampleSheet
from twinflow_core.training.validation import validation_loss

STEPS = OPTIONS.model_copy(update={"steps": 6, "batch_size": 4, "checkpoint_every": 2})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "base")


def data_of(backbone: Backbone, rows: int = 8) -> EncodedData:
    generator = torch.Generator().manual_seed(1)
    caption = torch.arange(rows) % 2 + 1
    patterns = torch.randn((2, *backbone.latent_shape), generator=generator)
    latents = patterns[caption - 1]
    return EncodedData(latents, caption, backbone.encode_prompts(["", "a red circle", "a blue square"]))


def train(folder: Path, options: FinetuneParams, state: Path, key: str = "k") -> Training:
    backbone = load_backbone(folder)
    training = Training(backbone.velocity, data_of(backbone), options, Resume(state, key))
    training.run()
    return training


def weights(training: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in training.averaged.parameters()])


def test_a_killed_run_resumes_to_the_same_bits_and_log(folder: Path, tmp_path: Path) -> None:
    whole = train(folder, STEPS, tmp_path / "whole")
    killed = tmp_path / "killed"
    backbone = load_backbone(folder)
    first = Training(backbone.velocity, data_of(backbone), STEPS, Resume(killed, "k"))
    for step in range(4):
        metrics = first._step(step)
        first.finished_steps = step + 1
        first.log.append({"step": float(step + 1), **metrics})
    first._save()
    resumed = train(folder, STEPS, killed)
    assert torch.equal(weights(resumed), weights(whole))
    assert [row["loss"] for row in resumed.log] == [row["loss"] for row in whole.log]


def test_a_state_of_another_run_is_not_resumed(folder: Path, tmp_path: Path) -> None:
    train(folder, STEPS, tmp_path, key="one")
    other = train(folder, STEPS.model_copy(update={"seed": 9}), tmp_path, key="two")
    assert len(other.log) == STEPS.steps


def test_the_loss_falls_on_one_batch(folder: Path, tmp_path: Path) -> None:
    shares: dict[Role, float] = {"near": 1.0}
    options = STEPS.model_copy(
        update={"steps": 100, "batch_size": 8, "learning_rate": 1e-2, "log_every": 1, "shares": shares}
    )
    near = [row["loss_near"] for row in train(folder, options, tmp_path).log]
    assert all(math.isfinite(loss) for loss in near)
    assert sum(near[-15:]) < 0.97 * sum(near[:15])


def test_a_backbone_blind_to_the_sign_is_refused_before_training(folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(folder)
    for parameter in backbone.pipeline.transformer.time_text_embed.timestep_embedder.parameters():
        torch.nn.init.zeros_(parameter)
    with pytest.raises(TwinflowError, match="cannot tell time"):
        Training(backbone.velocity, data_of(backbone), STEPS, Resume(tmp_path, "k")).run()


OWN: dict[str, Any] = {"fake_velocity": "own", "real_velocity": "base"}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, "before the fake branch has learnt"),
        (OWN, "while the second network still is the base"),
        ({"rectify_warmup": 2}, ""),
        ({"rectify_weight": 0.0}, ""),
        ({"objective": "rcgm"}, ""),
        ({"shares": {"near": 1, "any": 1, "fake": 1}}, ""),
    ],
)
def test_rectification_by_an_untrained_side_is_said_at_the_start_alone(
    changed: dict[str, Any], says: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = STEPS.model_copy(update={"steps": 1, "checkpoint_every": 1, **changed})
    train(folder, options, tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if "full weight from the first" in line]
    assert len(said) == bool(says)
    assert all(says in line for line in said)
    train(folder, options, tmp_path)
    assert "full weight" not in capsys.readouterr().err


def test_the_power_of_rectifications_times_reaches_the_draws_of_a_step(folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(folder)
    times = []
    for power in (1.0, 1.5):
        options = STEPS.model_copy(update={"rectify_t_power": power, "batch_size": 8})
        (part,) = Training(backbone.velocity, data_of(backbone), options, Resume(tmp_path, "k")).rows(0)
        times.append(part.draws.rectify_t)
    assert len(times[0]) > 0
    assert torch.equal(times[1], times[0].pow(1.5).clamp(min=1e-3))


def test_dropped_captions_are_the_empty_one_for_the_share_asked(folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(folder)
    options = STEPS.model_copy(update={"batch_size": 64, "caption_dropout": 0.25})
    training = Training(backbone.velocity, data_of(backbone, 64), options, Resume(tmp_path, "k"))
    dropped = []
    for step in range(options.steps):
        (part,) = training.rows(step)
        pooled = part.batch.conditioning.pooled
        dropped.append((pooled == part.batch.empty.pooled).all(dim=1))
    assert 0.18 < float(torch.cat(dropped).float().mean()) < 0.32
    assert not torch.equal(dropped[0], dropped[1])
    training.options = options.model_copy(update={"caption_dropout": 0.0})
    assert not (training.rows(0)[0].batch.conditioning.pooled == training.data.empty.pooled).all(dim=1).any()


def test_held_out_loss_and_sign_sensitivity_are_logged_and_change_no_weight(
    folder: Path, tmp_path: Path
) -> None:
    options = STEPS.model_copy(update={"validate_every": 2, "sample_every": 3})
    backbone = load_backbone(folder)
    data = data_of(backbone)
    sheet = SampleSheet(backbone, data, tmp_path / "sheets", seed=0)
    resume = Resume(tmp_path / "watched", "k")
    watched = Training(backbone.velocity, data, options, resume, validation=data, watch=sheet.draw)
    watched.run()
    assert [row["step"] for row in watched.log if "validation_loss" in row] == [2, 4, 6]
    assert all(row["sign_sensitivity"] > 1e-3 for row in watched.log)
    assert torch.equal(weights(watched), weights(train(folder, STEPS, tmp_path / "plain")))
    sheets = sorted((tmp_path / "sheets").iterdir())
    assert [path.name for path in sheets] == ["step_000003.png", "step_000006.png"]
    with Image.open(sheets[0]) as picture:
        assert picture.size == (8 * backbone.width, 2 * backbone.height)
    speed = json.loads((resume.folder / "speed.json").read_text())
    assert speed["images_per_second"] > 0
    assert [noted["step"] for noted in speed["series"]] == [row["step"] for row in watched.log]
    assert all(noted["images_per_second"] > 0 for noted in speed["series"])
    assert not any("second" in name for row in watched.log for name in row)


def test_the_held_out_loss_has_the_same_draws_every_time(folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(folder)
    training = Training(backbone.velocity, data_of(backbone), STEPS, Resume(tmp_path, "k"))
    twice = [
        validation_loss(training.objective, training.judged, training.data, STEPS, training.device, ALONE)
        for _ in range(2)
    ]
    assert twice[0] == twice[1]


def test_the_held_out_loss_is_the_same_in_parts_and_takes_their_rows_at_once(
    folder: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(folder)
    options = STEPS.model_copy(update={"batch_size": 8, "real_velocity": "base"})
    training = Training(backbone.velocity, data_of(backbone), options, Resume(tmp_path, "k"))
    rows: list[int] = []
    training.averaged.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    found: list[tuple[float, int]] = []
    for parts in (1, 4):
        rows.clear()
        told = options.model_copy(update={"accumulation": parts})
        lost = validation_loss(
            training.objective, training.judged, training.data, told, training.device, ALONE
        )
        found.append((lost, max(rows)))
    (whole, all_rows), (parted, some_rows) = found
    assert parted == pytest.approx(whole, rel=1e-5)
    assert 4 * some_rows == all_rows


def test_short_floats_stay_near_long_ones(folder: Path, tmp_path: Path) -> None:
    first = [
        train(
            folder, STEPS.model_copy(update={"steps": 1, "precision": precision}), tmp_path / precision
        ).log[0]
        for precision in ("float32", "bfloat16")
    ]
    assert first[0]["loss_fake"] != first[1]["loss_fake"]
    assert first[1]["loss_fake"] == pytest.approx(first[0]["loss_fake"], rel=0.02)


def test_a_compiled_network_is_one_graph_a_size_with_the_same_output_and_leaves_open_the_rows_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def backend(graph: torch.fx.GraphModule, given: list[object]) -> object:
        opened.append(len({str(each) for each in given if isinstance(each, torch.SymInt)}))
        return graph.forward

    compiled = partial(torch.compile, fullgraph=True, backend=backend)
    monkeypatch.setattr("twinflow_core.training.execution.torch.compile", compiled)
    velocity = load_backbone(folder).velocity.copy()
    torch.nn.init.normal_(velocity.target_time.embed.linear_2.weight)
    network = make_networks(velocity, Twins(velocity, None, None), compiled=True).online
    data = data_of(load_backbone(folder))
    for rows, width in ((2, 8), (3, 8), (5, 8), (3, 4), (2, 4), (4, 8)):
        t = torch.linspace(0.1, 0.9, rows)
        x_t = data.latents[:rows, :, :, :width].contiguous()
        inputs = (x_t, t, t / 2, data.conditioning[data.caption[:rows]])
        assert torch.allclose(network(*inputs), velocity(*inputs), atol=1e-6)
    # The first call knows no other; the second is compiled for all that come, and the first of another size.
    assert opened == [0, 1, 1]
