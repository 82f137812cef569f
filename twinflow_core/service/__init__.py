"""A small HTTP service around `runtime.generator.Generator`: images on request, swapped under load."""
