"""Builds a TensorRT engine of a graph."""
