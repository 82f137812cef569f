"""Values of the finetune section that do not go together are refused, with the keys to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline_clone import REPOSITORY
from twinflow_core.errors import TwinflowError
from twinflow_core.finetune_params import FinetuneParams
from twinflow_core.params import load_params


def loaded(folder: Path, **changed: Any) -> FinetuneParams:
    document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text(encoding="utf-8"))
    document["finetune"] |= changed
    (folder / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_params(folder / "params.yaml").finetune


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"objective": "vsd", "shares": {"one_step": 1}}, "shares.fake"),
        ({"objective": "vsd", "shares": {"one_step": 1, "near": 1, "fake": 0}}, "shares.fake"),
        ({"objective": "vsd", "shares": {"fake": 1}}, "shares.one_step"),
        ({"data_free": True, "real_velocity": "base", "guidance": 0}, "set guidance above 0"),
    ],
)
def test_a_network_that_nothing_trains_or_asks_is_refused(
    changed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(TwinflowError, match=says) as refused:
        loaded(tmp_path, **changed)
    assert refused.value.where.endswith("params.yaml: finetune")
    assert refused.value.fix == "Change one of them."


def test_shares_of_roles_that_an_objective_does_not_play_need_not_be_there(tmp_path: Path) -> None:
    assert loaded(tmp_path, objective="vsd", shares={"one_step": 1, "fake": 1}).has_fake_score
    assert not loaded(tmp_path, objective="rcgm", shares={"one_step": 1, "any": 1}).rectifies
