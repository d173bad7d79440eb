"""Comparisons: a step of the conversion against the step before, on pixels, logits and mIoU."""
