"""Keeps what was decided for one model, to read and to replay: the method, and what stays out of INT8."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from segdeploy.convert.int8.options import METHODS
from segdeploy.datasets.known import SCENES
from segdeploy.errors import CalibrationError, RequestError
from segdeploy.files import digest_of
from segdeploy.shipped import folder
from segdeploy.size import Size
from segdeploy.untrusted import Unreadable, load_yaml


@dataclass(frozen=True)
class Recipe:
    """A recipe; what is None in it is not said, and is as the request has it."""

    method: str | None = None
    percentile: float | None = None
    equalise: bool | None = None
    keep: tuple[str, ...] | None = None  # groups of layers that stay out of INT8; None: to be searched for
    widened: tuple[str, ...] = ()  # groups whose thresholds are those of least squared error instead
    dataset: str | None = None  # the images it was made with, or is to be
    split: str | None = None
    count: int | None = None
    seed: int | None = None
    aside: int | None = None  # images that are kept from the draw, to judge on
    made_for: str = ""  # a card
    size: str = ""  # of the graph's input
    mapping: str | None = None  # the file that says which id is which class, of a data set called folder
    mapping_digest: str | None = None

    def demand_made_for(self, card: str, size: str) -> None:
        """Groups of layers are those of one network, and were chosen at one size; made scenes are for one network."""
        if not (self.keep or self.widened or self.dataset == SCENES):
            return
        if self.made_for not in ("", card):
            raise CalibrationError(
                f"the recipe was made for {self.made_for}, the graph is of {card}; leave out --recipe to search for one"
            )
        if self.size not in ("", size):
            raise CalibrationError(
                f"the recipe was made for {self.made_for or card} at {self.size}, the graph is of {size}; leave out"
                " --recipe to search for one"
            )

    def demand_mapping(self, path: Path) -> None:
        """The file in which this recipe's data set has its meaning, unchanged."""
        wanted = (self.mapping_digest or "")[:12]
        if not path.is_file():
            raise CalibrationError(
                f"the recipe was made with the mapping {self.mapping} (sha256 {wanted}…), and {path} is not there;"
                " give it with --mapping"
            )
        found = digest_of(path)
        if self.mapping_digest not in (None, found):
            raise CalibrationError(
                f"the recipe was made with the mapping {self.mapping} (sha256 {wanted}…), {path} is another one"
                f" ({found[:12]}…); give the one it was made with, or search again without --recipe"
            )

    def as_text(self, *, lines: bool = True) -> str:
        """Give the file's content; a message has it on one line."""
        facts = {key: value for key, value in asdict(self).items() if value is not None and value != ""}
        facts |= {key: list(facts[key]) for key in LISTS if key in facts}
        if lines:
            return str(yaml.safe_dump(facts, sort_keys=False))
        return str(
            yaml.safe_dump(facts, sort_keys=False, default_flow_style=True, width=float("inf"))
        ).rstrip()


LISTS = ("keep", "widened")
LEAST_PERCENTILE = 0.001
MOST_SCENES = 10_000  # which takes a quarter of an hour, and a few gigabytes of the temporary folder
KINDS: dict[str, type | tuple[type, ...]] = {
    "method": str, "percentile": (int, float), "equalise": bool, "keep": list, "widened": list,
    "dataset": str, "split": str, "count": int, "seed": int, "aside": int, "made_for": str,
    "size": str, "mapping": str, "mapping_digest": str,
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
        facts: Any = load_yaml(path)
    except Unreadable as error:
        raise CalibrationError(f"{path} {error}") from error
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
    for key, least in (("count", 1), ("seed", 0), ("aside", 0)):
        if facts.get(key, least) < least:
            raise CalibrationError(f"{path.name}: {key} is {facts[key]}, less than {least}")
    if not LEAST_PERCENTILE <= facts.get("percentile", 100) <= 100:
        raise CalibrationError(
            f"{path.name}: percentile is {facts['percentile']}; expected {LEAST_PERCENTILE} to 100"
        )
    if facts.get("dataset") == SCENES and not {"count", "seed"} <= facts.keys():
        raise CalibrationError(f"{path.name}: made scenes need both a count and a seed")
    if facts.get("dataset") == SCENES and facts["count"] > MOST_SCENES:
        raise CalibrationError(
            f"{path.name}: count is {facts['count']}, and at most {MOST_SCENES} scenes are made"
        )
    if "size" in facts:
        try:
            Size.parse(facts["size"])
        except RequestError as error:
            raise CalibrationError(f"{path.name}: size: {error}") from error
    return Recipe(**facts | {key: tuple(facts[key]) for key in LISTS if key in facts})
