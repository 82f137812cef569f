"""The split is a property of the content: no list, no order, no neighbour has a say."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.data.splits import split_of

SHA = st.binary().map(lambda content: hashlib.sha256(content).hexdigest())


@given(SHA, st.floats(0.01, 0.98), st.floats(0.0, 0.01))
def test_a_larger_share_only_moves_images_into_validation(sha256: str, share: float, more: float) -> None:
    if split_of(sha256, share) == "validation":
        assert split_of(sha256, share + more) == "validation"


def test_the_share_is_kept() -> None:
    held = sum(
        split_of(hashlib.sha256(str(i).encode()).hexdigest(), 0.1) == "validation" for i in range(10_000)
    )
    assert 900 < held < 1100


def test_the_rule_never_changes() -> None:
    assert split_of("0" * 64, 0.1) == "validation"
    assert split_of("1999999999990000" + "0" * 48, 0.1) == "validation"
    assert split_of("199999999999a000" + "0" * 48, 0.1) == "train"
    assert split_of("f" * 64, 0.99) == "train"
