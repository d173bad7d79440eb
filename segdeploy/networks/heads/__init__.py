"""Holds heads that several families share."""
