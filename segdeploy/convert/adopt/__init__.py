"""Makes any ONNX graph of a segmentation network one of ours, proven against what it was."""
