"""Compares each step of a conversion with the step before it, on pixels, logits and mIoU."""
