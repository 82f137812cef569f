"""The plan held against measured peaks on a GPU."""
