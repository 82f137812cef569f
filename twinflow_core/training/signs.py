"""Whether a network can learn its own images' path at negative times: it must tell them from positive ones."""

from __future__ import annotations

import math

from twinflow_core.errors import TwinflowError

LEAST_SIGN_SENSITIVITY = 1e-6


def require_sign_sensitivity(found: list[float]) -> None:
    """Go on if every process has found a difference (see `target_time.sign_sensitivity`).

    Raises:
        TwinflowError: the velocities at -t and t are the same, or zero, or not finite.
    """
    if not all(math.isfinite(each) for each in found):
        raise TwinflowError(
            "The network's velocity is zero or not finite before training.",
            where=f"F(x, -0.5, -0.5) against F(x, 0.5, 0.5) at the first row of data/encoded: {found}",
            fix="See which of models/base and data/encoded holds zeros or numbers that are not finite.",
        )
    if min(found) < LEAST_SIGN_SENSITIVITY:
        raise TwinflowError(
            "This backbone cannot tell time -t from t, so TwinFlow's fake branch would do nothing.",
            where=f"F(x, -0.5, -0.5) differs from F(x, 0.5, 0.5) by {min(found):.1e} of it",
            fix="Use a backbone whose time embedding keeps the sign.",
        )
