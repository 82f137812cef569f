"""Two processes train as one does: the same batches, weights within rounding, and states that either goes on from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from tests.training.ranks_tree import build_tree, set_options
from tests.training.test_bucketed_training import bucketed_data_of
from tests.training.test_loop import STEPS, data_of
from twinflow_core.backbones.loading import load_backbone
from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FakeScoreParams, FinetuneParams
from twinflow_core.local.loopback import free_ports
from twinflow_core.params import load_params
from twinflow_core.stages.finetune import _train_as_rank, finetune
from twinflow_core.training.loop import Training
from twinflow_core.training.ranks import ALONE, Ranks, joined_ranks
from twinflow_core.training.resumption import Resume
from twinflow_core.training.sharding import local

pytestmark = pytest.mark.slow

FULL = STEPS.model_copy(update={"steps": 5, "checkpoint_every": 3, "log_every": 1, "validate_every": 5})
LORA = FULL.model_copy(
    update={
        "lora_rank": 4,
        "learning_rate": 1e-2,
        "real_velocity": "base",
        "batch_size": 5,
        "accumulation": 2,
    }
)
SHORT = FULL.model_copy(update={"precision": "bfloat16", "steps": 2})
# The first of two steps has the lower held-out loss.
BEST = LORA.model_copy(update={"steps": 2, "validate_every": 1, "keep_best": True})
# A copy of the base learns the fakes' velocity; or low-rank weights on it do, beside low-rank weights on the network.
OWN = FULL.model_copy(
    update={"fake_velocity": "own", "real_velocity": "base", "fake_score": FakeScoreParams(weights="full")}
)
VSD = LORA.model_copy(update={"objective": "vsd", "steps": 3, "validate_every": 0})
EIGHT = FULL.model_copy(update={"optimizer": "adamw_8bit"})
LEAN = EIGHT.model_copy(update={"weights": "bfloat16", "steps": 2})
OFFLOAD = FULL.model_copy(update={"optimizer": "adamw_offload"})
NF4 = LORA.model_copy(update={"quantized_base": "nf4", "steps": 2})
RUNS = {
    "full": FULL, "lora": LORA, "short": SHORT, "best": BEST, "eight": EIGHT, "offload": OFFLOAD, "lean": LEAN,
    "nf4": NF4, "own": OWN, "vsd": VSD,
}  # fmt: skip
# Those that one process and two go on with from the state of the other.
RESUMED = ("full", "eight", "offload", "own")
STAGE = {"steps": 2, "sample_every": 2, "validate_every": 2, "keep_last": 1, "launch": {"processes": 2}}
# Other values of the log are of the rows that a rank fills its share with, too.
SHARED = (
    "step", "loss", "loss_one_step", "loss_near", "loss_any", "loss_fake", "gradient_norm", "fake_gradient_norm",
    "sign_sensitivity", "validation_loss",
)  # fmt: skip
Result = dict[str, Any]


def make(folder: Path, options: FinetuneParams, state: Path, ranks: Ranks) -> Training:
    backbone = load_backbone(folder)
    # Of two shapes where there are low-rank weights.
    data = bucketed_data_of(backbone) if options.lora_rank else data_of(backbone)
    return Training(backbone.velocity, data, options, Resume(state, "k"), validation=data, ranks=ranks)


def result(training: Training, folder: Path, ranks: Ranks) -> Result:
    """The averaged weights, gathered on the first rank, and the log."""
    whole = load_backbone(folder).velocity if ranks.first else None
    training.collect(whole)
    return {"weights": whole.state_dict() if whole else {}, "log": training.log}


def held_share(training: Training) -> float:
    """The share of all elements, of networks and optimiser, that this rank holds."""
    tensors = [
        t
        for network in (training.online, training.averaged, training.base, training.fake_score)
        if network
        for t in network.parameters()
    ]
    tensors += [t for state in training.optimizer.state.values() for t in state.values()]
    return sum(local(t).numel() for t in tensors) / sum(t.numel() for t in tensors)


def spoilt(folder: Path, state: Path, ranks: Ranks) -> str:
    """What a rank says if a number of one rank's rows alone is not finite."""
    training = make(folder, FULL, state, ranks)
    if ranks.rank == 1:
        # But for the row that is looked at before the first step.
        training.data.latents[1:].fill_(float("nan"))
    try:
        training.run()
    except TwinflowError as error:
        return str(error)
    return ""


def run_rank(rank: int, folder: Path, states: Path, ports: tuple[int, int]) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0]), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    with joined_ranks() as ranks:
        found: dict[str, Any] = {}
        for name, options in RUNS.items():
            training = make(folder, options, states / name, ranks)
            training.run()
            found[name] = result(training, folder, ranks)
            found[f"{name} held"] = held_share(training)
        for name in RESUMED:
            training = make(folder, RUNS[name], states / f"{name} of one", ranks)
            training.run()
            found[f"{name} resumed"] = result(training, folder, ranks)
        found["spoilt"] = spoilt(folder, states / "spoilt", ranks)
        torch.save(found, states / f"{rank}.pt")
    os.environ["MASTER_PORT"] = str(ports[1])
    root = states / "tree"
    _train_as_rank(load_params(root / "params.yaml"), root, Resume(root / "state", "k"))


@pytest.fixture(scope="module")
def states(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The states that two processes left, and states of one before them, after three steps."""
    folder = tmp_path_factory.mktemp("states")
    for name in RESUMED:
        options = RUNS[name].model_copy(update={"steps": 3, "validate_every": 0})
        make(tiny_pipeline, options, folder / f"{name} of one", ALONE).run()
    build_tree(folder / "tree", tiny_pipeline, **STAGE)
    # Forked, so that they need not import everything again.
    arguments = (tiny_pipeline, folder, free_ports(2))
    mp.start_processes(run_rank, args=arguments, nprocs=2, start_method="fork")
    return folder


@pytest.fixture(scope="module")
def two(states: Path) -> dict[str, Any]:
    return torch.load(states / "0.pt")


@pytest.fixture(scope="module")
def one(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    folder = tmp_path_factory.mktemp("alone")
    found = {}
    for name, options in RUNS.items():
        training = make(tiny_pipeline, options, folder / name, ALONE)
        start = result(training, tiny_pipeline, ALONE)["weights"]
        training.run()
        found[name] = {"start": start, **result(training, tiny_pipeline, ALONE)}
    return found


def assert_agrees(found: Result, expected: Result, share: float) -> None:
    """The weights differ by no more than this share of the way that training moved them, and the logs by as much."""
    start, end = flat(expected["start"]), flat(expected["weights"])
    assert (end - start).abs().max() > 1e-3
    assert (flat(found["weights"]) - end).norm() < share * (end - start).norm()
    for theirs, ours in zip(found["log"], expected["log"], strict=True):
        kept = [key for key in SHARED if key in ours]
        expected_here = pytest.approx([ours[key] for key in kept], rel=share, nan_ok=True)
        assert [theirs[key] for key in kept] == expected_here


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weights[key].flatten() for key in sorted(weights)])


@pytest.mark.parametrize("name", ["full", "lora", "best", "eight", "offload", "nf4", "own", "vsd"])
def test_two_processes_train_as_one_does(one: dict[str, Result], two: dict[str, Any], name: str) -> None:
    assert_agrees(two[name], one[name], 1e-3)


def test_each_process_holds_its_part_of_all_weights_and_of_the_optimisers_state(states: Path) -> None:
    both = [torch.load(states / f"{rank}.pt") for rank in (0, 1)]
    for name in RUNS:
        shares = [held[f"{name} held"] for held in both]
        # What is no weight of two parts, such as the count of steps, both hold.
        assert sum(shares) == pytest.approx(1, abs=0.01)
        assert max(shares) < 0.6


@pytest.mark.parametrize("name", ["short", "lean"])
def test_short_floats_on_two_processes_stay_near_those_on_one(
    one: dict[str, Result], two: dict[str, Any], name: str
) -> None:
    assert_agrees(two[name], one[name], 0.3)


@pytest.mark.parametrize("name", RESUMED)
def test_two_processes_go_on_from_the_state_of_one(
    one: dict[str, Result], two: dict[str, Any], name: str
) -> None:
    assert_agrees(two[f"{name} resumed"], one[name], 1e-3)


@pytest.mark.parametrize("name", RESUMED)
def test_one_process_goes_on_from_the_state_of_two(
    one: dict[str, Result], two: dict[str, Any], states: Path, tiny_pipeline: Path, name: str
) -> None:
    alone = make(tiny_pipeline, RUNS[name], states / name, ALONE)
    alone._restore()
    assert alone.finished_steps == 3
    codes = [key for state in alone.optimizer.state.values() for key in state if key.endswith("_codes")]
    assert bool(codes) == (name == "eight")
    averaged = alone.run()
    assert_agrees({"weights": averaged.state_dict(), "log": alone.log}, one[name], 1e-3)
    # What one process then saves replaces the shards.
    alone._save()
    assert [path.name for path in sorted((states / name).iterdir())] == ["speed.json", "state.pt"]


def test_what_is_not_finite_on_one_rank_stops_all_with_the_same_message(states: Path) -> None:
    said = [torch.load(states / f"{rank}.pt")["spoilt"] for rank in (0, 1)]
    assert said[0] == said[1]
    assert "not finite at step 0" in said[0]


def test_the_stage_on_two_processes_leaves_one_candidate_one_log_and_one_sheet(states: Path) -> None:
    root = states / "tree"
    assert {path.name for path in (root / "state").iterdir()} >= {"samples", "speed.json", "shards.json"}
    assert [path.name for path in (root / "state/samples").iterdir()] == ["step_000002.png"]
    theirs = stock_weights(root), (root / "models/candidate/training_log.csv").read_text()
    kept = load_file(root / "state/last/step_000002.safetensors")
    assert all(theirs[0][name].equal(weight) for name, weight in kept.items())
    set_options(root, **STAGE | {"launch": {}})
    finetune(load_params(root / "params.yaml"), root)
    ours = stock_weights(root), (root / "models/candidate/training_log.csv").read_text()
    assert (flat(theirs[0]) - flat(ours[0])).abs().max() < 1e-5
    assert theirs[1].splitlines()[0] == ours[1].splitlines()[0]


def stock_weights(root: Path) -> dict[str, torch.Tensor]:
    return load_backbone(root / "models/candidate").velocity.state_dict()
