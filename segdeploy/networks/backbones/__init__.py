"""Holds backbones that several families share."""
