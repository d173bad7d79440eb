"""Class names, their colours, and the data set's own ids for them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import yaml
from numpy.typing import NDArray

from segdeploy.errors import CardError
from segdeploy.shipped import folder


@dataclass(frozen=True)
class Labels:
    name: str
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ids: tuple[int, ...] | None  # the data set's id of each class; None: its index
    ignore: int = 255

    def palette(self) -> NDArray[np.uint8]:
        """256×3 RGB; black where there is no class."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.colours)] = self.colours
        return table

    def lookup_from_ids(self) -> NDArray[np.uint8]:
        """256 entries from the data set's ids to class indices, `ignore` for every other id."""
        table = np.full(256, self.ignore, np.uint8)
        for index, identity in enumerate(self.ids or range(len(self.names))):
            table[identity] = index
        return table


def read_labels(name: str) -> Labels:
    path = folder("models") / "labels" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise CardError(f"no labels are called {name!r}; known: {known}")
    classes = yaml.safe_load(path.read_text())["classes"]
    ids = tuple(entry["id"] for entry in classes) if "id" in classes[0] else None
    return Labels(
        name,
        tuple(entry["name"] for entry in classes),
        tuple((r, g, b) for r, g, b in (entry["colour"] for entry in classes)),
        ids,
    )


def generated_labels(names: Sequence[str], name: str = "unnamed") -> Labels:
    """Colours for classes that have none: hues a golden angle apart, in three brightnesses."""
    colours = []
    for index in range(len(names)):
        channels = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, (1.0, 0.75, 0.5)[index % 3])
        red, green, blue = (round(255 * channel) for channel in channels)
        colours.append((red, green, blue))
    return Labels(name, tuple(names), tuple(colours), None)
