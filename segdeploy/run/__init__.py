"""Sessions: one protocol, and one file or folder for each runtime."""
