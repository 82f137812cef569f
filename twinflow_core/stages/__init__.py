"""One file a DVC stage: reads params and input folders, writes output folders, nothing else."""
