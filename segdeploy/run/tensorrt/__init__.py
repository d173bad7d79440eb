"""Opens TensorRT's engines, checks them against this machine, and runs and times them."""
