"""A training whose numbers are no longer finite stops, and says which of them are not."""

from __future__ import annotations

import math

from twinflow_core.errors import TwinflowError
from twinflow_core.training.optimizer import GradientNorms
from twinflow_core.training.step_metrics import StepMetrics


def require_finite(step: int, metrics: StepMetrics, norms: GradientNorms) -> None:
    """Go on if the loss and all gradients are finite.

    Args:
        step: 0-based.
        metrics: of the whole step; a value that has no rows is no fault.
        norms: of the gradients, before clipping.

    Raises:
        TwinflowError: they are not; it names the step, the terms with their rows, and whose gradient it is.
    """
    loss = metrics.loss
    causes = [
        f"the gradient of {whose} is {norm}" for whose, norm in norms.named() if not math.isfinite(norm)
    ]
    if math.isfinite(loss) and not causes:
        return
    terms = [
        f"{name} of {_rows(mean.rows)} is {mean.value}"
        for name, mean in metrics.means.items()
        if mean.rows > 0 and not math.isfinite(mean.value)
    ]
    if not terms and not math.isfinite(loss):
        terms = [f"the loss is {loss}"]
    what = "a gradient" if math.isfinite(loss) else "the loss"
    raise TwinflowError(
        f"Training stopped: {what} is not finite at step {step}.",
        where=f"step {step}: {', '.join([*terms, *causes])}",
        fix="Lower finetune.learning_rate or finetune.clip_norm in params.yaml and run again.",
    )


def _rows(count: float) -> str:
    return f"{count:.0f} row{'' if count == 1 else 's'}"
