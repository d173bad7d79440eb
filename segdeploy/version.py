"""Holds the version of segdeploy, which every artefact carries."""

__version__ = "0.1.0"
