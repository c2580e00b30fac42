"""NeMo models that were exported to ONNX, run on the CPU without PyTorch."""
