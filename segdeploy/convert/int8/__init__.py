"""An FP32 graph to INT8: calibration, search, judgement, and the files that come of it."""
