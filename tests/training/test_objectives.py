"""Every objective and option on a real, tiny SD3, and what each costs.

That each is its equations is found in the tests by hand, what each is at its optimum in `test_optimum.py`.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.by_hand import options
from tests.training.test_loop import STEPS, data_of, train, weights
from tests.training.test_twinflow_objective import OPTIONS, SHAPE, Counted, counted_networks, make_batch
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.training import twinflow_objective
from twinflow_core.training.flow_matching_objective import FlowMatching
from twinflow_core.training.loop import Resume, Training
from twinflow_core.training.meanflow_objective import MeanFlow
from twinflow_core.training.objectives import Objective, Rcgm, TwinFlow, make_objective
from twinflow_core.training.roles import ROLES, RoleCounts, role_counts
from twinflow_core.training.step import MicroBatch, Networks
from twinflow_core.training.twinflow_draws import draw_step
from twinflow_core.training.vsd_objective import Vsd

REPOSITORY = Path(__file__).parents[2]
SHORT: dict[str, Any] = {"steps": 2, "batch_size": 4, "checkpoint_every": 1, "log_every": 1}


def equivalents(objective: Objective, networks: Networks, counters: list[Counted], rows: int = 16) -> float:
    """Forward-equivalents a row of one step, a backward counting as two."""
    shares = {role: 1.0 if role in objective.roles else 0.0 for role in ROLES}
    counts = role_counts(shares, 0, rows)
    draws = draw_step(0, 0, counts, SHAPE, getattr(objective, "options", OPTIONS).data_free)
    objective.loss(networks, MicroBatch(make_batch(rows), draws, counts, counts), 0)
    return sum(3 * each.rows_with_gradient + each.rows for each in counters) / rows


@pytest.mark.parametrize(
    ("made", "cost"),
    [
        (TwinFlow(OPTIONS), 6.25),
        (TwinFlow(options(near_target="velocity")), 5.75),
        (TwinFlow(options(one_step_target="rectified")), 5.75),
        (TwinFlow(options(fakes="shared")), 6.0),
        (TwinFlow(options(near_target="velocity", fakes="shared")), 5.5),
        (FlowMatching(OPTIONS), 5.0),
        (FlowMatching(options(guidance=0)), 3.0),
        (MeanFlow(OPTIONS), 6.0),
    ],
)
def test_what_a_row_costs(made: Objective, cost: float) -> None:
    networks, online, averaged = counted_networks()
    assert equivalents(made, networks, [online, averaged]) == cost


def test_what_a_row_of_rcgm_costs() -> None:
    networks, online, averaged = counted_networks()
    counts = role_counts(dict.fromkeys(Rcgm.roles, 1.0), 0, 16)
    guided = 2 * (counts.near + counts.any) / 16
    assert equivalents(Rcgm(OPTIONS), networks, [online, averaged]) == 3 + guided + OPTIONS.order


def test_other_objectives_leave_the_options_of_twinflow_alone() -> None:
    own = {"fake_velocity": "own", "one_step_target": "rectified", "real_velocity": "base"}
    networks, online, averaged = counted_networks()
    network = Counted(torch.tensor(0.45))
    with_base = Networks(networks.online, networks.averaged, network)
    counted = [equivalents(Rcgm(options(**each)), with_base, [online, averaged]) for each in (own, {})]
    assert counted[1] == 2 * counted[0]
    assert not options(objective="rcgm", **own).has_fake_score


def test_what_a_row_of_vsd_costs() -> None:
    online, base = Counted(torch.tensor(0.5, requires_grad=True)), Counted(torch.tensor(0.4))
    fake = Counted(torch.tensor(0.3, requires_grad=True))
    cost = equivalents(Vsd(OPTIONS), Networks(online, online, base, fake), [online, base, fake])
    assert cost == (4 + 6) / 2


@pytest.mark.parametrize(("guidance", "each"), [(0.0, 1), (0.8, 2)])
def test_the_base_is_asked_for_the_empty_caption_where_guidance_is(guidance: float, each: int) -> None:
    networks, _, _ = counted_networks()
    base = Counted(torch.tensor(0.45))
    counts = RoleCounts(one_step=4, near=0, any=0, fake=4)
    rows = MicroBatch(make_batch(8), draw_step(0, 0, counts, SHAPE), counts, counts)
    with_base = Networks(networks.online, networks.averaged, base)
    TwinFlow(options(real_velocity="base", guidance=guidance)).loss(with_base, rows, 0)
    assert base.rows == each * counts.one_step


@pytest.mark.parametrize(("one_step", "made"), [("recursive", 8), ("rectified", 4)])
def test_data_free_makes_no_image_for_rows_that_read_none(one_step: str, made: int) -> None:
    online, own = Counted(torch.tensor(0.5, requires_grad=True)), Counted(torch.tensor(0.3))
    networks = Networks(online, Counted(torch.tensor(0.4)), Counted(torch.tensor(0.45)), own)
    counts = RoleCounts(one_step=4, near=0, any=0, fake=4)
    rows = MicroBatch(make_batch(8), draw_step(0, 0, counts, SHAPE, data_free=True), counts, counts)
    chosen = options(data_free=True, real_velocity="base", fake_velocity="own", one_step_target=one_step)
    TwinFlow(chosen).loss(networks, rows, 0)
    assert online.rows == made


def test_data_free_makes_every_row_itself_and_reads_no_image() -> None:
    networks, _, _ = counted_networks()
    base = Counted(torch.tensor(0.45))
    objective = TwinFlow(options(data_free=True, real_velocity="base"))
    counts = role_counts(OPTIONS.shares, 0, 8)
    draws = draw_step(0, 0, counts, SHAPE, data_free=True)
    with_base = Networks(networks.online, networks.averaged, base)
    losses = []
    for scale in (1.0, 5.0):
        batch = make_batch(8)
        batch.x.mul_(scale)
        losses.append(objective.loss(with_base, MicroBatch(batch, draws, counts, counts), 0).metrics.loss)
    assert losses[0] == losses[1]


def test_shared_fakes_are_the_one_step_images_under_their_own_prompts() -> None:
    asked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def network(x_t, t, r, conditioning):  # type: ignore[no-untyped-def]
        if float(t.min()) < 0:
            asked.append((t, conditioning.pooled))
        return 0.5 * x_t

    counts = role_counts(OPTIONS.shares, 0, 8)
    batch, draws = make_batch(8), draw_step(0, 0, counts, SHAPE)
    rows = MicroBatch(batch, draws, counts, counts)
    TwinFlow(options(fakes="shared")).loss(Networks(network, network, None), rows, 0)
    assert torch.equal(asked[0][1][-counts.fake :], batch.conditioning.pooled[: counts.one_step])


@pytest.mark.parametrize("fakes", ["own", "shared"])
def test_a_fake_score_that_mirrors_the_network_gives_the_same_step_but_for_its_own_distance(
    fakes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The network's own fake rows are robust and those of a second network are squares: squares here for both.
    monkeypatch.setattr(twinflow_objective, "robust", lambda mse: mse)

    def loss_and_gradient(mirrored: bool) -> tuple[float, float]:
        online, base = Counted(torch.tensor(0.5, requires_grad=True)), Counted(torch.tensor(0.45))
        own: Any = (lambda x_t, t, r, c: online(x_t, -t, -t, c)) if mirrored else None
        networks = Networks(online, Counted(torch.tensor(0.4)), base, own)
        chosen = options(fakes=fakes, real_velocity="base", fake_velocity="own" if mirrored else "online")
        counts = role_counts(OPTIONS.shares, 0, 8)
        rows = MicroBatch(make_batch(8), draw_step(0, 0, counts, SHAPE), counts, counts)
        result = TwinFlow(chosen).loss(networks, rows, 0)
        result.loss.backward()
        assert online.weight.grad is not None
        return result.metrics.loss, float(online.weight.grad)

    assert loss_and_gradient(True) == pytest.approx(loss_and_gradient(False), rel=1e-6)


def test_rectified_one_step_rows_follow_rectification_alone() -> None:
    online = Counted(torch.tensor(0.5, requires_grad=True))
    networks = Networks(online, Counted(torch.tensor(0.4)), None)
    counts = RoleCounts(one_step=4, near=0, any=0, fake=4)
    rows = MicroBatch(make_batch(8), draw_step(0, 0, counts, SHAPE), counts, counts)
    chosen = options(one_step_target="rectified")
    result = TwinFlow(chosen).loss(networks, rows, 0).metrics.values
    assert result["loss_one_step"] == 0
    expected = result["loss_fake"] / 2 + chosen.rectify_weight * result["rectify"]
    assert result["loss"] == pytest.approx(expected)
    assert networks.averaged.rows == 0  # type: ignore[attr-defined]


def test_a_fake_score_learns_from_fake_rows_alone_and_leaves_negative_times_unasked() -> None:
    online, own = (
        Counted(torch.tensor(0.5, requires_grad=True)),
        Counted(torch.tensor(0.3, requires_grad=True)),
    )
    networks = Networks(online, Counted(torch.tensor(0.4)), Counted(torch.tensor(0.45)), own)
    counts = role_counts(OPTIONS.shares, 0, 16)
    rows = MicroBatch(make_batch(16), draw_step(0, 0, counts, SHAPE), counts, counts)
    chosen = options(real_velocity="base", fake_velocity="own")
    TwinFlow(chosen).loss(networks, rows, 0)
    assert own.rows_with_gradient == counts.fake
    assert own.rows == counts.one_step
    assert online.rows_with_gradient == 16 - counts.fake
    assert min(online.earliest, own.earliest) >= 0


def test_rectification_rises_over_its_warm_up() -> None:
    networks, _, _ = counted_networks()
    counts = role_counts(OPTIONS.shares, 0, 8)
    rows = MicroBatch(make_batch(8), draw_step(0, 0, counts, SHAPE), counts, counts)
    objective = TwinFlow(options(rectify_warmup=10))
    results = [objective.loss(networks, rows, step).metrics.values for step in (0, 4, 9, 50)]
    without = TwinFlow(options(rectify_weight=0.0)).loss(networks, rows, 0).metrics.loss
    shares = [(each["loss"] - without) / (OPTIONS.rectify_weight * each["rectify"]) for each in results]
    assert shares == pytest.approx([0.1, 0.5, 1.0, 1.0], rel=1e-4)


CASES: dict[str, dict[str, Any]] = {
    "rcgm": {"objective": "rcgm"},
    "flow_matching": {"objective": "flow_matching"},
    "meanflow by difference": {"objective": "meanflow"},
    "meanflow by jvp": {"objective": "meanflow", "meanflow": {"derivative": "forward_mode"}},
    "vsd with lora": {"objective": "vsd"},
    "vsd with a copy": {"objective": "vsd", "fake_score": {"weights": "full"}},
    "vsd on lora": {"objective": "vsd", "lora_rank": 2},
    "a fake score": {"fake_velocity": "own", "real_velocity": "base"},
    "a copy as fake score": {
        "fake_velocity": "own",
        "real_velocity": "base",
        "fake_score": {"weights": "full"},
        "fakes": "shared",
        "accumulation": 2,
    },
    "rectified alone": {"one_step_target": "rectified"},
    "lora": {"lora_rank": 2, "real_velocity": "base"},
    "data-free": {"data_free": True, "real_velocity": "base"},
    "cheapest": {"near_target": "velocity", "fakes": "shared", "accumulation": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_it_trains_and_resumes_to_the_same_bits(case: str, tiny_pipeline: Path, tmp_path: Path) -> None:
    chosen = options(**SHORT | CASES[case])
    before = weights_of_base(tiny_pipeline)
    whole = train(tiny_pipeline, chosen, tmp_path / "whole")
    assert all(math.isfinite(row["loss"]) for row in whole.log)
    assert not torch.equal(weights(whole)[: len(before)], before) or chosen.lora_rank
    backbone = load_backbone(tiny_pipeline)
    first = Training(backbone.velocity, data_of(backbone), chosen, Resume(tmp_path / "part", "k"))
    first.log.append({"step": 1.0, **first._step(0)})
    first.finished_steps = 1
    first._save()
    assert torch.equal(weights(train(tiny_pipeline, chosen, tmp_path / "part")), weights(whole))


def weights_of_base(folder: Path) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in load_backbone(folder).velocity.parameters()])


def test_the_frozen_base_and_a_low_rank_fake_score_do_not_move(tiny_pipeline: Path, tmp_path: Path) -> None:
    before = weights_of_base(tiny_pipeline)
    trained = train(tiny_pipeline, options(**SHORT | {"objective": "vsd"}), tmp_path)
    assert trained.base is not None
    assert torch.equal(torch.cat([p.flatten() for p in trained.base.parameters()]), before)
    own = trained.fake_score
    assert own is not None
    moved = [p for name, p in own.named_parameters() if "lora_B" in name]
    assert any(float(p.detach().abs().max()) > 0 for p in moved)


def test_an_objective_without_rows_is_refused() -> None:
    with pytest.raises(TwinflowError, match="no row to train on"):
        make_objective(options(objective="flow_matching", shares={"any": 1}))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"data_free": True}, "real_velocity"),
        ({"data_free": True, "real_velocity": "base", "objective": "meanflow"}, "objective"),
        ({"data_free": True, "real_velocity": "base", "fakes": "shared"}, "own"),
        ({"fake_velocity": "own"}, "real_velocity"),
        ({"one_step_target": "rectified", "rectify_weight": 0}, "rectify_weight"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        options(**changed)


def test_every_option_is_explained() -> None:
    text = "".join((REPOSITORY / "docs" / name).read_text() for name in ("model.md", "objectives.md"))
    missing = [
        name for name in FinetuneParams.model_fields if not re.search(rf"`(finetune\.)?{name}\b", text)
    ]
    assert missing == []
    assert STEPS.objective == "twinflow"
