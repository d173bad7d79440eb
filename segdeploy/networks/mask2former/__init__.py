"""Mask2Former: the published network, the one that is deployed, and the names of its weights."""
