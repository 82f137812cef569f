"""The training loop, its draws, EMA, checkpoints."""
