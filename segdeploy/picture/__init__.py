"""Reads and writes frames, masks and video."""
