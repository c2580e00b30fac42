"""NVIDIA NeMo's models, on a GPU or a CPU. The only place that imports PyTorch and NeMo, in a worker process alone."""
