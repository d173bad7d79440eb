"""Frames from somewhere, through a session, to somewhere."""
