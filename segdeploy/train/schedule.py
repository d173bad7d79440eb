"""Gives the learning rate of each step, as a share of the recipe's."""

from __future__ import annotations

from segdeploy.train.recipe import TrainingRecipe


def rate_at(step: int, recipe: TrainingRecipe) -> float:
    """Rise linearly, then fall to 0 by the recipe's power; after a restart from above again, without rising."""
    rising = int(recipe.warm_up * recipe.steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    turns = recipe.restarts + 1
    share = (step - rising) / max(recipe.steps - rising, 1) * turns
    return float((1 - min(share % 1.0, 1.0)) ** recipe.power)
