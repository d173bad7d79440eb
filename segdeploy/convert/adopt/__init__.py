"""Turns any ONNX graph of a segmentation network into one of ours, compared with the original."""
