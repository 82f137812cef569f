"""One small file a model family; target-time conditioning by one hook; loading and saving."""
