"""Holds the version of segdeploy, which every artefact carries."""

__version__ = "0.2.0"
