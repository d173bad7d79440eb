"""Backbones that several families share."""
