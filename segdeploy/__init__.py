"""From a segmentation checkpoint to a proven engine and a running camera stream."""

__version__ = "0.1.0"
