"""Measures a model's latency, throughput, memory and power before it is deployed, with trtexec's definitions."""
