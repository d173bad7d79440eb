"""Scores a model against labels."""
