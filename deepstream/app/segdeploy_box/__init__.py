"""Holds the parts of segdeploy_app.py: settings, pipeline, pixels, painting, messages, broker and metrics."""
