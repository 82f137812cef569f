"""AdamW in the CPU's memory: torch's own update, and nothing lost to short weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.test_lean_adamw import BETAS, run, through_a_file
from twinflow_core.training.offloaded_adamw import OffloadedAdamW
from twinflow_core.training.ranks import ALONE
from twinflow_core.training.resumption import Resume, Trained, restore_progress
from twinflow_core.training.sharded_checkpoint import save_shards

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def make(dtype: torch.dtype) -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(40, 128, dtype=dtype)), nn.Parameter(torch.ones(128, dtype=dtype))]


def test_of_float32_weights_it_is_torchs_adamw_to_the_bit() -> None:
    mine, theirs = make(torch.float32), make(torch.float32)
    run(mine, OffloadedAdamW(mine, 1e-3, BETAS), range(20))
    run(theirs, torch.optim.AdamW(theirs, 1e-3, BETAS, weight_decay=0.0, fused=True), range(20))
    assert all(a.equal(b) for a, b in zip(mine, theirs, strict=True))


def test_a_changed_rate_reaches_the_update() -> None:
    weights = make(torch.float32)
    optimizer = OffloadedAdamW(weights, 1e-3, BETAS)
    optimizer.param_groups[0]["lr"] = 0.0
    run(weights, optimizer, range(2))
    assert weights[0].eq(1).all()


def test_short_weights_are_the_rounded_float32_ones() -> None:
    weights = make(torch.bfloat16)
    optimizer = OffloadedAdamW(weights, 1e-4, BETAS)
    run(weights, optimizer, range(60))
    for weight, master in zip(weights, optimizer.masters, strict=True):
        assert weight.equal(master.to(torch.bfloat16))
    # Sixty updates of a tenth of a rounding each: they are kept, and have reached the weights.
    assert weights[0].ne(1).any()


class Two(nn.Module):
    """A network of the weights that `run` trains."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weights = nn.ParameterList(make(dtype))
        self.optimizer = OffloadedAdamW(list(self.weights), 1e-3, BETAS)

    @property
    def trained(self) -> Trained:
        return Trained(self, self, None, self.optimizer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_in_shards_holds_all_that_a_run_goes_on_from(dtype: torch.dtype, tmp_path: Path) -> None:
    whole, resumed = Two(dtype), Two(dtype)
    run(list(whole.weights), whole.optimizer, range(5))
    save_shards(tmp_path, "k", 5, whole.trained.tensors(), [], ALONE)
    assert restore_progress(Resume(tmp_path, "k"), resumed.trained, ALONE) == (5, [])
    for each in (whole, resumed):
        run(list(each.weights), each.optimizer, range(5, 12))
    assert all(a.equal(b) for a, b in zip(resumed.weights, whole.weights, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_run_is_the_same_run_to_the_bit(dtype: torch.dtype) -> None:
    whole = make(dtype)
    run(whole, OffloadedAdamW(whole, 1e-3, BETAS), range(12))
    killed = make(dtype)
    first = OffloadedAdamW(killed, 1e-3, BETAS)
    run(killed, first, range(5))
    saved = through_a_file({"weights": killed, "optimizer": first.state_dict()})
    resumed = make(dtype)
    second = OffloadedAdamW(resumed, 1e-3, BETAS)
    with torch.no_grad():
        for parameter, value in zip(resumed, saved["weights"], strict=True):
            parameter.copy_(value)
    second.load_state_dict(saved["optimizer"])
    run(resumed, second, range(5, 12))
    assert all(a.equal(b) for a, b in zip(resumed, whole, strict=True))
