"""Runs an exported package with numpy, tokenizers and ONNX Runtime alone; imports no torch."""
