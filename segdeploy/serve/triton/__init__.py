"""Writes model repositories for NVIDIA's Triton Inference Server, and holds what runs in its Python backend."""
