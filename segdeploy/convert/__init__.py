"""The steps that make one artefact out of another: checkpoint, graph, FP16, INT8, engine."""
