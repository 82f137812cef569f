"""What holds of every engine that shards are given to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.encoding.prepared_folder import write_prepared
from tests.pipeline_clone import REPOSITORY
from tests.test_worker_processes import fail_at_three, square, where
from twinflow_core.errors import TwinflowError
from twinflow_core.params import load_params
from twinflow_core.worker_processes import Cluster, map_shards


def results_are_in_order_from_other_processes_and_errors_come_whole(cluster: Callable[[], Cluster]) -> None:
    """`cluster` is asked for anew by each use."""
    assert list(map_shards(square, range(9), 1, cluster())) == [n * n for n in range(9)]
    assert os.getpid() not in list(map_shards(where, range(4), 1, cluster()))
    with pytest.raises(TwinflowError, match="Three is wrong") as caught:
        list(map_shards(fail_at_three, range(9), 1, cluster()))
    assert (caught.value.where, caught.value.fix) == ("here", "Use four.")


def an_encoding_has_the_bytes_of_one_process(engine: str, address: str, pipeline: Path, folder: Path) -> None:
    """By the engine of this name in the section `run`, at this address."""
    from twinflow_core.stages.encode import encode

    found = []
    for given in (None, address):
        root = folder / str(given is None)
        write_prepared(root, list(range(12)))
        (root / "models").mkdir()
        (root / "models/base").symlink_to(pipeline)
        document = yaml.safe_load((REPOSITORY / "tests/params.tiny.yaml").read_text())
        document["run"][engine] = given
        (root / "params.yaml").write_text(yaml.safe_dump(document))
        encode(load_params(root / "params.yaml"), root)
        found.append({path.name: path.read_bytes() for path in (root / "data/encoded").iterdir()})
    assert found[0] == found[1]
    assert len(found[0]) > 4
