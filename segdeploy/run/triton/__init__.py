"""Runs models on a Triton server: one session, over gRPC or HTTP, through shared memory on one host."""
