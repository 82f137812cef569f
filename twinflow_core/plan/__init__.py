"""What a training will need before it runs: memory, time, evaluations."""
