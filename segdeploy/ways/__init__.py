"""Measures every way this machine has to run a graph, compares each with the graph, and keeps the best."""
