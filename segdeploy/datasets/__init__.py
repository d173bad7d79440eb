"""Reads labelled data sets: finds their images and label files, and turns ids into classes."""
