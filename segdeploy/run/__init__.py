"""Opens and runs models in sessions: one protocol, and one file or folder for each runtime."""
