"""Renders an application of several streams: ours in Python, and a configuration of NVIDIA's deepstream-app."""
