"""Labelled data sets: where their images and masks lie, and what their ids mean."""
