"""A base model from the Hugging Face hub: pinned to a commit, the files that a pipeline needs, checked by hash."""
