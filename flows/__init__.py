"""One file a flow; each also runs as `python -m flows.<name>`."""
