"""What was decided for one model, small enough to read and to be replayed: the method, and what stays out of INT8."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from segdeploy.calibrate.thresholds import METHODS
from segdeploy.errors import CalibrationError
from segdeploy.files import write_text
from segdeploy.shipped import folder


@dataclass(frozen=True)
class Recipe:
    method: str = "entropy"
    percentile: float = 99.99
    equalise: bool | None = None  # None: whichever does less damage
    keep: tuple[str, ...] | None = None  # groups of layers that stay out of INT8; None: to be searched for
    widened: tuple[str, ...] = ()  # groups whose thresholds are those of least squared error instead
    dataset: str | None = None  # the images it was made with, or is to be
    split: str | None = None
    count: int | None = None
    seed: int = 0
    made_for: str = ""

    def write(self, path: Path) -> None:
        facts = {key: value for key, value in asdict(self).items() if value is not None}
        facts |= {key: list(facts[key]) for key in LISTS if key in facts}
        write_text(path, yaml.safe_dump(facts, sort_keys=False))


LISTS = ("keep", "widened")
KINDS: dict[str, type | tuple[type, ...]] = {
    "method": str, "percentile": (int, float), "equalise": bool, "keep": list, "widened": list,
    "dataset": str, "split": str, "count": int, "seed": int, "made_for": str,
}  # fmt: skip


def known_recipes() -> list[str]:
    return sorted(path.stem for path in folder("calibration").glob("*.yaml"))


def read_recipe(name: str) -> Recipe:
    """The shipped recipe called `name`, or the user's own file, which ends in .yaml or .yml."""
    path = (
        Path(name).expanduser()
        if name.endswith((".yaml", ".yml"))
        else folder("calibration") / f"{name}.yaml"
    )
    if not path.is_file():
        raise CalibrationError(
            f"there is no recipe {name}; known: {', '.join(known_recipes())}, or a .yaml file"
        )
    try:
        facts: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path.name} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(facts, dict):
        raise CalibrationError(f"{path.name} holds no keys; a recipe starts with method: entropy")
    for key, value in facts.items():
        if key not in KINDS:
            raise CalibrationError(
                f"{path.name}: {key!r} is not a key of a recipe; known: {', '.join(KINDS)}"
            )
        if key in LISTS and isinstance(value, list) and not all(isinstance(one, str) for one in value):
            raise CalibrationError(f"{path.name}: {key} is {value!r}; expected names of groups of layers")
        if not isinstance(value, KINDS[key]) or (isinstance(value, bool) and KINDS[key] is not bool):
            raise CalibrationError(f"{path.name}: {key} is {value!r}")
    if facts.get("method", "entropy") not in METHODS:
        raise CalibrationError(f"{path.name}: method is {facts['method']!r}; known: {', '.join(METHODS)}")
    return Recipe(**facts | {key: tuple(facts[key]) for key in LISTS if key in facts})
