"""A graph to a TensorRT engine."""
