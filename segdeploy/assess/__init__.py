"""Numbers about a model: speed, accuracy, and the report of both."""
