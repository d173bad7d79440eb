"""TensorRT: engines are opened, checked against this machine, run and timed."""
