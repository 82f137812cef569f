"""Roles for any batch size, any shares."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinflow_core.training.roles import ROLES, role_counts, role_of_row

EQUAL = dict.fromkeys(ROLES, 1.0)


@given(st.integers(0, 50), st.integers(1, 70))
def test_every_row_has_one_role(step: int, batch_size: int) -> None:
    assert role_counts(EQUAL, step, batch_size).total == batch_size


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda shares: sum(shares) > 0.1))
def test_shares_are_met_over_steps_whatever_the_batch_size(values: list[float]) -> None:
    shares = dict(zip(ROLES, values, strict=True))
    rows = [role_of_row(shares, row) for row in range(1024)]
    for role in ROLES:
        assert abs(rows.count(role) - 1024 * shares[role] / sum(values)) <= 2


def test_four_equal_roles_alternate_exactly() -> None:
    for batch_size in (4, 8, 64):
        counts = role_counts(EQUAL, 3, batch_size)
        assert {counts.one_step, counts.near, counts.any, counts.fake} == {batch_size // 4}


def test_one_row_a_step_meets_every_role() -> None:
    assert {role_of_row(EQUAL, row) for row in range(4)} == set(ROLES)


def test_no_share_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="positive share"):
        role_of_row(dict.fromkeys(ROLES, 0.0), 0)
