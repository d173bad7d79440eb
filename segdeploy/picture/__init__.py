"""Frames, masks and video, as files and as arrays."""
