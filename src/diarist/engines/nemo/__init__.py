"""The NVIDIA NeMo engine. Only this package imports PyTorch and NeMo, and only in worker processes."""
