"""NVIDIA DeepStream: nvinfer configurations rendered, checked, and replayed where DeepStream is absent."""
