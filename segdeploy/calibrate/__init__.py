"""From real images to INT8 scales: what every tensor of a graph holds, and which range of it int8 should cover."""
