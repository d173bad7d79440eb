"""Makes one artefact from another: checkpoint, graph, FP16, INT8, engine."""
