"""The learning rate: linear warm-up, constant, linear decay to zero."""

from __future__ import annotations


def learning_rate_factor(step: int, steps: int, warmup: int, decay: int) -> float:
    """Factor on the peak learning rate at a 0-based step.

    Args:
        step: the step about to be taken.
        steps: steps of the whole run.
        warmup: steps of the rise; the first step already learns.
        decay: steps of the fall at the end; 0 keeps the rate constant (the paper's setting).
    """
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = min(1.0, (steps - step) / decay) if decay else 1.0
    return rise * fall
