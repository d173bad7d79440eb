"""Measure what an engineer would want to know before a model is deployed, with trtexec's definitions."""
