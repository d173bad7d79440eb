"""Reads the mapping of a user's own two folders: a YAML file that says where they are and which id is which class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdeploy.datasets.dataset import first_names, indices
from segdeploy.datasets.known import Layout
from segdeploy.errors import CardError, EvaluationError
from segdeploy.model.labels import MOST_CLASSES, Labels, known_labels, labels_of, read_labels, read_yaml

PLACES = ("image_ending", "images", "label_ending", "labels")


@dataclass(frozen=True)
class FolderMapping:
    """Holds the mapping in the file `path`: the layout, and the meaning of the label values."""

    path: Path
    layout: Layout
    labels: Labels
    ids: dict[int, int]  # value of a label pixel → class, or the labels' `ignore`
    counted_as: dict[str, str]  # class of a model → class here


def read_mapping(path: Path) -> FolderMapping:
    facts = read_facts_of_mapping(path)
    layout = Layout(
        facts.get("images", "images"),
        facts.get("labels", "labels"),
        facts.get("image_ending", ""),
        facts.get("label_ending", ".png"),
    )
    labels = labels_for([name for name in facts["ids"].values() if name != "ignore"], path.stem)
    ids = {identity: indices(labels.names)[name] for identity, name in facts["ids"].items()}
    counted_as = facts.get("from", {})
    for name, target in counted_as.items():
        if target not in (*labels.names, "none"):
            raise EvaluationError(
                f"{path.name}: `from` counts {name!r} as {target!r}; known are none, {first_names(labels.names)}"
            )
    return FolderMapping(path, layout, labels, ids, counted_as)


def read_facts_of_mapping(path: Path) -> dict[str, Any]:
    try:
        facts = read_yaml(path)
    except CardError as error:
        raise EvaluationError(str(error)) from error
    if not isinstance(facts, dict) or not {"ids"} <= facts.keys() <= {*PLACES, "ids", "from"}:
        raise EvaluationError(f"{path.name} must have `ids`, and may have `from`, {', '.join(PLACES)}")
    ids, counted_as = facts["ids"], facts.get("from", {})
    if not isinstance(ids, dict) or not all(
        type(identity) is int and 0 <= identity < 1 << 16 and isinstance(name, str)
        for identity, name in ids.items()
    ):
        raise EvaluationError(
            f"{path.name}: `ids` maps 0 to 65535 to class names or ignore, as in {{0: road}}"
        )
    if set(ids.values()) <= {"ignore"}:
        raise EvaluationError(f"{path.name}: `ids` names no class")
    if len(set(ids.values()) - {"ignore"}) > MOST_CLASSES:
        raise EvaluationError(f"{path.name}: `ids` names more than {MOST_CLASSES} classes")
    if not isinstance(counted_as, dict) or not all(
        isinstance(name, str) for pair in counted_as.items() for name in pair
    ):
        raise EvaluationError(f"{path.name}: `from` maps a model's class names to those of `ids`, or to none")
    if not all(isinstance(facts[key], str) for key in PLACES if key in facts):
        raise EvaluationError(f"{path.name}: folders and endings are text")
    if facts.get("label_ending", "").lower().endswith((".jpg", ".jpeg")):
        raise EvaluationError(f"{path.name}: JPEG does not keep ids; labels are PNG, BMP or TIFF")
    return facts


def labels_for(names: Iterable[str], title: str) -> Labels:
    """Find the shipped labels with this set of classes, else make labels in the order of their first mention."""
    unique = tuple(dict.fromkeys(names))
    for known in map(read_labels, known_labels()):
        if set(known.names) == set(unique):
            return known
    return labels_of(unique, title)
