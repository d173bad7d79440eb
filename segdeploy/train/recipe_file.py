"""Reads a recipe of training from a file, and puts what was asked for beside it in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segdeploy.errors import TrainingError
from segdeploy.model.typed_json import WrongField, from_json
from segdeploy.train.recipe import WORDS, TrainingRecipe
from segdeploy.untrusted import Unreadable, load_yaml


def read_training_recipe(path: Path | None, asked: dict[str, Any]) -> TrainingRecipe:
    """Read a recipe file, if there is one, and put what was asked for in its place."""
    where = "the recipe" if path is None else str(path)
    facts: Any = {}
    if path is not None:
        try:
            facts = load_yaml(path)
        except Unreadable as error:
            raise TrainingError(f"{path} {error}") from error
        unknown = sorted(set(facts) - set(WORDS)) if isinstance(facts, dict) else [facts]
        if unknown:
            raise TrainingError(f"{path} has {unknown[0]!r}; a recipe has {', '.join(WORDS)}")
    try:
        return from_json(TrainingRecipe, {**facts, **asked})
    except WrongField as error:
        raise TrainingError(f"{where}: {error}") from error
