"""From a finetuned diffusers pipeline to a checked ONNX package."""
