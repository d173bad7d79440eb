"""Models at work: video streams, and DeepStream."""
