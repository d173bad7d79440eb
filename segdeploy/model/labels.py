"""Class names, their colours, and the data set's own ids for them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import CardError
from segdeploy.model.names import OBEYED
from segdeploy.shipped import folder
from segdeploy.untrusted import Unreadable, load_yaml

SUFFIXES = (".yaml", ".yml")
MOST_CLASSES = 65535  # an id has 16 bits, and the largest number is `ignore`
BY_COUNT = {19: "cityscapes", 150: "ade20k"}


@dataclass(frozen=True)
class Labels:
    name: str
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ids: tuple[int, ...] | None  # the data set's id of each class; None: its index

    @property
    def ignore(self) -> int:
        """Give the value of a label pixel that is of no class: beyond every class."""
        return ignore_of(len(self.names))

    def __post_init__(self) -> None:
        """Refuse more classes than a label's 16 bits tell apart, and names that no list or legend can show."""
        if len(self.names) > MOST_CLASSES:
            raise CardError(
                f"{len(self.names):,} classes are more than a label of 16 bits tells apart; expected at most"
                f" {MOST_CLASSES:,}"
            )
        for place, name in enumerate(self.names):
            if OBEYED.search(name):
                raise CardError(
                    f"class {place} is called {name!r}; expected one line of text that can be printed: correct it where"
                    " the classes are named"
                )

    def palette(self) -> NDArray[np.uint8]:
        """Give RGB for every value that a label may have; black where there is no class."""
        table = np.zeros((256 if self.ignore == 255 else 1 << 16, 3), np.uint8)
        table[: len(self.colours)] = self.colours
        return table

    def lookup_from_ids(self) -> NDArray[Any]:
        """Give class indices for the data set's ids, `ignore` for every other id.

        ADE20K's "reduce labels" (0 is no class, 1 to 150 are) is in its ids, so nothing has to be reduced after this.
        """
        identities = self.ids or tuple(range(len(self.names)))
        table = np.full(max(256, max(identities) + 1), self.ignore, truth_type(len(self.names)))
        table[list(identities)] = np.arange(len(identities))
        return table


# What a model answers has as many bits as its classes need; what a label file says has room for `ignore` too.


def ids_type(classes: int) -> np.dtype[np.uint8 | np.uint16]:
    return np.dtype(np.uint8 if classes <= 256 else np.uint16)


def truth_type(classes: int) -> np.dtype[np.uint8 | np.uint16]:
    return ids_type(classes + 1)


def ignore_of(classes: int) -> int:
    return int(np.iinfo(truth_type(classes)).max)


def known_labels() -> list[str]:
    return sorted(path.stem for path in (folder("models") / "labels").glob("*.yaml"))


def read_labels(name: str, beside: Path | None = None) -> Labels:
    """The shipped labels called `name`, or those of a .yaml of the user's own, which lies in the folder `beside`."""
    if name.endswith(SUFFIXES):
        path = (beside or Path()) / Path(name).expanduser()
        return parse_labels(path.stem, read_yaml(path), path)
    if name not in known_labels():
        raise CardError(f"no labels are called {name!r}; known: {', '.join(known_labels())}, or a .yaml file")
    return _shipped_labels(name)


@cache  # 150 classes take PyYAML 40 ms, and six cards share them
def _shipped_labels(name: str) -> Labels:
    path = folder("models") / "labels" / f"{name}.yaml"
    return parse_labels(name, read_yaml(path), path)


def parse_labels(name: str, facts: Any, path: Path) -> Labels:
    classes = facts.get("classes") if isinstance(facts, dict) else None
    if not isinstance(classes, list) or not 1 <= len(classes) <= MOST_CLASSES:
        raise CardError(f"{path.name} has no list `classes` of 1 to {MOST_CLASSES} classes")
    for index, entry in enumerate(classes):
        if not (
            isinstance(entry, dict)
            and {"name", "colour"} <= entry.keys() <= {"name", "colour", "id"}
            and isinstance(entry["name"], str)
            and isinstance(entry["colour"], list)
            and len(entry["colour"]) == 3
            and all(_is_below(256, value) for value in entry["colour"])
            and _is_below(MOST_CLASSES, entry.get("id", 0))
        ):
            raise CardError(
                f"{path.name}: class {index} is {entry!r}; expected {{name: road, colour: [128, 64, 128]}}, and an id "
                f"of 0 to {MOST_CLASSES - 1} where the data set's label files have another than the class's index"
            )
    given = [entry["id"] for entry in classes if "id" in entry]
    if given and (len(given) != len(classes) or len(set(given)) != len(given)):
        raise CardError(f"{path.name}: ids are for all classes or for none, and no two are the same")
    return Labels(
        name,
        tuple(entry["name"] for entry in classes),
        tuple((r, g, b) for r, g, b in (entry["colour"] for entry in classes)),
        tuple(given) or None,
    )


def labels_of(names: Sequence[str], name: str) -> Labels:
    """The shipped labels of exactly these classes, or else generated ones.

    Placeholders (LABEL_0, LABEL_1, …) say nothing but their number: 19 are taken for Cityscapes and 150 for ADE20K,
    because that is what the .pth files of mmsegmentation and NVlabs, which often name no classes, were trained on.
    """
    if list(names) == [f"LABEL_{index}" for index in range(len(names))] and len(names) in BY_COUNT:
        return read_labels(BY_COUNT[len(names)])
    for known in known_labels():  # reading all as YAML takes a tenth of a second
        text = (folder("models") / "labels" / f"{known}.yaml").read_text(encoding="utf-8")
        if all(one in text for one in names) and read_labels(known).names == tuple(names):
            return read_labels(known)
    return generated_labels(names, name)


def generated_labels(names: Sequence[str], name: str = "unnamed") -> Labels:
    """Colours for classes that have none: hues a golden angle apart, in three brightnesses."""
    colours = []
    for index in range(len(names)):
        channels = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, (1.0, 0.75, 0.5)[index % 3])
        red, green, blue = (round(255 * channel) for channel in channels)
        colours.append((red, green, blue))
    return Labels(name, tuple(names), tuple(colours), None)


def read_yaml(path: Path) -> Any:
    try:
        return load_yaml(path)
    except Unreadable as error:
        raise CardError(f"{path.name if path.is_file() else path} {error}") from error


def _is_below(end: int, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end
