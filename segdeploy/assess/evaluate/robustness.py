"""Keeps the finished scores of a robustness table, which takes eighty evaluations, so that a stopped run can go on.

The current evaluation is kept image by image like any other (`Unfinished`), in its own file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from segdeploy.assess.evaluate.evaluate import Unfinished, key_text
from segdeploy.errors import EvaluationError
from segdeploy.files import write_text
from segdeploy.untrusted import read_json

SCHEMA = 1  # raise it when a corruption changes, too: older scores are then worthless


class Spoilt:
    """Holds the scores by corruption and severity in the file `path`; `key` names model, data set and options.

    The key decides a score alone, since a frame's own pixels seed its corruption.
    """

    def __init__(self, path: Path, key: Mapping[str, str]) -> None:
        self.path, self.key = path, dict(key)
        self.scores = self._read()

    def score(self, name: str, severity: int, evaluate: Callable[[Unfinished], float]) -> float:
        """Return the kept score, or compute and keep it with `evaluate`."""
        what = f"{name} {severity}"
        if what not in self.scores:
            under_way = Unfinished(self._image_by_image(what), {**self.key, "spoilt": what})
            self.scores[what] = evaluate(under_way)
            write_text(self.path, json.dumps({"schema": SCHEMA, **self.key, "scores": self.scores}) + "\n")
            under_way.remove()
        return self.scores[what]

    def has(self, name: str, severity: int) -> bool:
        return f"{name} {severity}" in self.scores

    def _image_by_image(self, what: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{what.replace(' ', '-')}")

    def _read(self) -> dict[str, float]:
        if not self.path.is_file():
            return {}
        try:
            found = read_json(self.path)
            schema, scores = found.pop("schema"), found.pop("scores")
            scores = {str(what): float(score) for what, score in scores.items()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise EvaluationError(f"{self.path} is not of an unfinished evaluation; delete it") from error
        if (schema, found) != (SCHEMA, self.key):
            raise EvaluationError(
                f"{self.path} is left from another evaluation, of {key_text(found)}; this one is of "
                f"{key_text(self.key)}. Finish that one with its own command, or delete the file to begin again"
            )
        return scores
