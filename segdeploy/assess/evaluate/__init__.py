"""How good a model is against labels."""
