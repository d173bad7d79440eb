"""Builds a TensorRT engine from a graph."""
