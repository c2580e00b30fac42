"""The engine for NeMo models that were exported to ONNX: it runs on the CPU without PyTorch."""
