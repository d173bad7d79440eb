"""A graph to an engine: parsed, built, looked into and proven by whichever TensorRT is there."""
