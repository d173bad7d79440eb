"""Defines a labelled data set: its images with their label files, and the meaning of the values in these.

A look-up table turns the values of label files into classes and knows every value that may occur: an unknown value
shows a wrong mapping, and is refused rather than ignored. Labels are never resized.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.datasets.known import FOLDER
from segdeploy.datasets.label_files import pack, read_label_file
from segdeploy.errors import EvaluationError, RequestError
from segdeploy.files import digest_of
from segdeploy.model.foreign import BARE_IDS
from segdeploy.model.labels import BY_COUNT, Labels, ignore_of, read_labels, truth_type
from segdeploy.picture.image import LabelMap

STRANGE = 1 << 16  # the class of an unknown value


@dataclass(frozen=True)
class Pair:
    image: Path
    truth: Path


@dataclass(frozen=True)
class Dataset:
    name: str
    root: Path
    split: str
    labels: Labels  # the classes that are scored
    pairs: tuple[Pair, ...]
    ids: Mapping[int, int]  # value of a label pixel → class, or the labels' `ignore`
    colours: Mapping[tuple[int, int, int], int] = field(
        default_factory=dict
    )  # the same, where labels are coloured
    counted_as: Mapping[str, str] = field(
        default_factory=dict
    )  # class of a model → class here, where names differ
    mapping: Path | None = None  # the file that `ids` were read from

    def __len__(self) -> int:
        return len(self.pairs)

    def __str__(self) -> str:
        return f"{self.name} {self.split}".strip()

    def limited(self, count: int | None) -> Dataset:
        """Keep `count` pairs, evenly spread: the first ones of a split are of one city, or of one drive."""
        if count is not None and count < 1:
            raise RequestError(f"a limit of {count} images leaves none")
        if count is None or count >= len(self.pairs):
            return self
        chosen = tuple(self.pairs[index * len(self.pairs) // count] for index in range(count))
        return replace(self, pairs=chosen)

    def named(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    @cached_property
    def digest(self) -> str:
        """Digest the list of files with their sizes in bytes and the meaning of their values; not every pixel."""
        paths = [path for pair in self.pairs for path in (pair.image, pair.truth)]
        try:
            files = [(self.named(path), path.stat().st_size) for path in paths]
        except OSError as error:
            raise EvaluationError(f"{error.filename} cannot be read: {error.strerror or error}") from error
        meaning = [sorted(table.items()) for table in (self.ids, self.colours, self.counted_as)]
        facts = json.dumps([self.name, self.split, self.labels.names, files, meaning])
        return hashlib.sha256(facts.encode()).hexdigest()

    def asked_for(self) -> dict[str, Any]:
        """Name this data set again, in the keys of a recipe."""
        if self.mapping is None:
            return {"dataset": self.name, "split": self.split}
        return {
            "dataset": FOLDER,
            "split": self.split or None,
            "mapping": str(self.mapping),
            "mapping_digest": digest_of(self.mapping),
        }

    def read_truth(self, pair: Pair) -> LabelMap:  # class indices, or the labels' `ignore`
        pixels = read_label_file(pair.truth, coloured=bool(self.colours))
        grey = pixels.ndim == 2
        classes = self._of_ids.take(pixels) if grey else self._of_colours.take(pack(pixels))
        strange = classes == STRANGE
        if strange.any():
            value = pixels[strange][0]
            what = f"the id {value}" if grey else f"the colour {tuple(map(int, value))}"
            raise EvaluationError(
                f"{pair.truth} holds {what}, which {self.name} does not know; ids are {ranges(self.ids)}"
                + (f", or one of {len(self.colours)} colours" if self.colours else "")
            )
        return classes.astype(truth_type(len(self.labels.names)))

    def lookup_from(self, model: Labels) -> LabelMap:
        """Map each class of a model to its class here; one without gets `ignore`, which is wrong at scored pixels."""
        names = known_as(model.names, self.labels.names)
        targets = [self.counted_as.get(name, name) for name in names]
        missing = [name for name in self.labels.names if name not in targets]
        if missing and model.name == BARE_IDS:
            raise EvaluationError(
                "the model answers class ids and does not say what they mean; name the card that does, with --card"
                " NAME_OR_FILE"
            )
        if missing:
            raise EvaluationError(
                f"the model's {len(names)} classes ({first_names(names)}) do not fit {self.name}: none counts as "
                f"{first_names(missing)}. --dataset folder with a --mapping can say what each counts as, under `from`"
            )
        own = {name: index for index, name in enumerate(self.labels.names)}
        none = self.labels.ignore
        table = np.full(max(256, len(targets)), none, truth_type(len(own)))
        table[: len(targets)] = [own.get(target, none) for target in targets]
        return table

    @cached_property
    def _of_ids(self) -> NDArray[np.int32]:
        table = np.full(1 << 16, STRANGE, np.int32)
        table[list(self.ids)] = list(self.ids.values())
        return table

    @cached_property
    def _of_colours(self) -> NDArray[np.int32]:
        table = np.full(1 << 24, STRANGE, np.int32)
        table[pack(np.array(list(self.colours)))] = list(self.colours.values())
        return table


def indices(names: Sequence[str]) -> dict[str, int]:
    return {**{name: place for place, name in enumerate(names)}, "ignore": ignore_of(len(names))}


def known_as(names: Sequence[str], own: Sequence[str]) -> Sequence[str]:
    """Name a foreign graph's numbered classes: by the data set if it has as many, 19 by Cityscapes."""
    if list(names) != [f"class {index}" for index in range(len(names))]:
        return names
    if len(names) == len(own):
        return own
    return read_labels(BY_COUNT[len(names)]).names if len(names) in BY_COUNT else names


def first_names(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def ranges(values: Iterable[int]) -> str:
    """Write 0, 1, 2, 255 as `0 to 2, 255`."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(f"{low}" if low == high else f"{low} to {high}" for low, high in runs)
