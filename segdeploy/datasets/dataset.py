"""Images and their labels: Cityscapes, KITTI's semantics, CamVid in its usual layouts, and any two folders.

The values of label files become classes by a look-up table that knows every value which may occur: one that it does
not know is a wrong mapping, and is refused rather than ignored. Labels are never resized.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.datasets.label_files import pack, read_label_file
from segdeploy.errors import CardError, EvaluationError, RequestError
from segdeploy.files import digest_of
from segdeploy.model.labels import BY_COUNT, Labels, known_labels, labels_of, read_labels, read_yaml
from segdeploy.picture.image import IMAGE_SUFFIXES, LabelMap
from segdeploy.shipped import folder

IGNORE = 255
NONE = 255  # of a prediction: no class of the data set, and so wrong wherever the truth is counted
STRANGE = 256  # of a value that has no meaning
CITYSCAPES_IDS = 34  # 0 to 33; those of no evaluated class are not counted


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
    ids: Mapping[int, int]  # value of a label pixel → class, or IGNORE
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
        """`count` pairs, evenly spread: the first of a split are of one city, or of one drive."""
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
        """Of the list of files with their sizes in bytes, and of what their values mean; not of every pixel."""
        paths = [path for pair in self.pairs for path in (pair.image, pair.truth)]
        try:
            files = [(self.named(path), path.stat().st_size) for path in paths]
        except OSError as error:
            raise EvaluationError(f"{error.filename} cannot be read: {error.strerror or error}") from error
        meaning = [sorted(table.items()) for table in (self.ids, self.colours, self.counted_as)]
        facts = json.dumps([self.name, self.split, self.labels.names, files, meaning])
        return hashlib.sha256(facts.encode()).hexdigest()

    def asked_for(self) -> dict[str, Any]:
        """What to ask for to open it again, in the keys of a recipe."""
        if self.mapping is None:
            return {"dataset": self.name, "split": self.split}
        return {
            "dataset": "folder",
            "split": self.split or None,
            "mapping": str(self.mapping),
            "mapping_digest": digest_of(self.mapping),
        }

    def read_truth(self, pair: Pair) -> LabelMap:  # class indices, or IGNORE
        pixels = read_label_file(pair.truth, coloured=bool(self.colours))
        grey = pixels.ndim == 2
        classes = self._of_ids.take(pixels) if grey else self._of_colours.take(pack(pixels))
        strange = classes > IGNORE
        if strange.any():
            value = pixels[strange][0]
            what = f"the id {value}" if grey else f"the colour {tuple(map(int, value))}"
            raise EvaluationError(
                f"{pair.truth} holds {what}, which {self.name} gives no meaning; ids are {ranges(self.ids)}"
                + (f", or one of {len(self.colours)} colours" if self.colours else "")
            )
        return classes.astype(np.uint8)

    def lookup_from(self, model: Labels) -> NDArray[np.uint8]:
        """256 entries from a model's class to the class here that it counts as, NONE where it counts as none."""
        names = known_as(model.names, self.labels.names)
        targets = [self.counted_as.get(name, name) for name in names]
        missing = [name for name in self.labels.names if name not in targets]
        if missing:
            raise EvaluationError(
                f"the model's {len(names)} classes ({shortened(names)}) do not fit {self.name}: none counts as "
                f"{shortened(missing)}. --dataset folder with a --mapping can say what each counts as, under `from`"
            )
        own = {name: index for index, name in enumerate(self.labels.names)}
        table = np.full(256, NONE, np.uint8)
        table[: len(targets)] = [own.get(target, NONE) for target in targets]
        return table

    @cached_property
    def _of_ids(self) -> NDArray[np.uint16]:
        table = np.full(1 << 16, STRANGE, np.uint16)
        table[list(self.ids)] = list(self.ids.values())
        return table

    @cached_property
    def _of_colours(self) -> NDArray[np.uint16]:
        table = np.full(1 << 24, STRANGE, np.uint16)
        table[pack(np.array(list(self.colours)))] = list(self.colours.values())
        return table


def open_dataset(name: str, root: Path, split: str | None = None, mapping: Path | None = None) -> Dataset:
    """`split` is val for Cityscapes and CamVid and training for KITTI unless given; `mapping` is for `folder`."""
    if name != "folder" and name not in DATASETS:
        raise RequestError(f"no data set is called {name!r}; known: {', '.join((*DATASETS, 'folder'))}")
    if (name == "folder") != (mapping is not None):
        raise RequestError(
            "--mapping FILE.yaml and --dataset folder go together; the file says `ids: {0: road, 255: ignore}`, and "
            "`images` and `labels` where the folders are called otherwise"
        )
    if not root.is_dir():
        raise EvaluationError(f"there is no folder {root}")
    return DATASETS[name](root, split) if mapping is None else two_folders(root, split, mapping)


def cityscapes(root: Path, split: str | None) -> Dataset:
    split = split or "val"
    pictures, truths = root / "leftImg8bit" / split, root / "gtFine" / split
    looked_for = (
        f"{pictures}/CITY/*_leftImg8bit.png with {truths}/CITY/*_gtFine_labelIds.png or *_labelTrainIds.png"
    )
    found, ending, ids = find(truths, "_gtFine_labelIds.png"), "_gtFine_labelIds.png", cityscapes_ids()
    if not found:
        ending = "_gtFine_labelTrainIds.png"
        found, ids = find(truths, ending), {**{index: index for index in range(19)}, 255: IGNORE}
    pairs = pair_up(find(pictures, "_leftImg8bit.png"), found, f"{truths}/*{ending}", looked_for)
    return Dataset("cityscapes", root, split, read_labels("cityscapes"), pairs, ids)


def kitti(root: Path, split: str | None) -> Dataset:
    """Frame *_11 of each scene, which the scene flow benchmark adds to the same folder, has no labels."""
    split = split or "training"
    pictures, truths = root / split / "image_2", root / split / "semantic"
    looked_for = f"{pictures}/*_10.png with {truths}/*_10.png"
    pairs = pair_up(find(pictures, "_10.png"), find(truths, "_10.png"), f"{truths}/*_10.png", looked_for)
    return Dataset("kitti", root, split, read_labels("cityscapes"), pairs, cityscapes_ids())


def cityscapes_ids() -> dict[int, int]:
    """255 is what the licence plate's −1 becomes in a byte."""
    counted = {identity: index for index, identity in enumerate(read_labels("cityscapes").ids or ())}
    return dict.fromkeys((*range(CITYSCAPES_IDS), 255), IGNORE) | counted


# Folder of images, folder of labels, how a label file ends, and whether all splits are in one folder.
CAMVID_LAYOUTS = (
    ("{split}", "{split}annot", ".png", False),  # SegNet's: ids of the 11 classes
    ("{split}", "{split}_labels", "_L.png", False),  # the original colours, in folders per split
    ("701_StillsRaw_full", "LabeledApproved_full", "_L.png", True),  # as it was published
    ("images", "labels", "_L.png", True),
)


def camvid(root: Path, split: str | None) -> Dataset:
    split = split or "val"
    facts = read_yaml(folder("models") / "labels" / "camvid.yaml")
    labels = read_labels("camvid")
    index = indices(labels.names)
    ids = {**{place: place for place in range(len(labels.names))}, len(labels.names): IGNORE, 255: IGNORE}
    colours = {tuple(entry["colour"]): index[entry["is"]] for entry in facts["originals"]}
    looked_for = []
    for first, second, ending, whole in CAMVID_LAYOUTS:
        pictures, truths = root / first.format(split=split), root / second.format(split=split)
        looked_for.append(f"{pictures}/*.png with {truths}/*{ending}")
        images, found = find(pictures, ".png"), find(truths, ending)
        if whole:
            images, found = of_camvid_split(images, split), of_camvid_split(found, split)
        if found:
            pairs = pair_up(images, found, f"{truths}/*{ending}", looked_for[-1])
            return Dataset("camvid", root, split, labels, pairs, ids, colours, facts["from_cityscapes"])
    raise EvaluationError("nothing was found of " + ", nor of ".join(looked_for))


def of_camvid_split(found: dict[str, Path], split: str) -> dict[str, Path]:
    return {stem: path for stem, path in found.items() if camvid_split(stem) == split}


def camvid_split(stem: str) -> str:
    """SegNet's 367, 101 and 233 frames, which papers since have used, told by their names."""
    drive, _, frame = stem.partition("_")
    if drive == "0016E5" and "07959" <= frame <= "08159":
        return "val"
    if drive == "Seq05VD" or (drive == "0001TP" and frame >= "008550"):
        return "test"
    return "train"


def two_folders(root: Path, split: str | None, mapping: Path) -> Dataset:
    facts = read_mapping(mapping)
    places = [facts.get(key, key) for key in ("images", "labels")]
    if (split is not None) != any("{split}" in place for place in places):
        raise RequestError(
            f"--split NAME and a folder with {{split}} in {mapping.name} go together; its folders: {', '.join(places)}"
        )
    pictures, truths = (root / place.replace("{split}", split or "") for place in places)
    first, second = facts.get("image_ending", ""), facts.get("label_ending", ".png")
    images, found = find(pictures, first), find(truths, second)
    if truths == pictures:
        images = {stem: path for stem, path in images.items() if path not in found.values()}
    looked_for = f"{pictures}/*{first or '.*'} with {truths}/*{second}"
    pairs = pair_up(images, found, f"{truths}/*{second}", looked_for)
    labels = labels_for([name for name in facts["ids"].values() if name != "ignore"], mapping.stem)
    ids = {identity: indices(labels.names)[name] for identity, name in facts["ids"].items()}
    counted_as = facts.get("from", {})
    for name, target in counted_as.items():
        if target not in (*labels.names, "none"):
            raise EvaluationError(
                f"{mapping.name}: `from` counts {name!r} as {target!r}; known are none, {shortened(labels.names)}"
            )
    return Dataset(
        mapping.stem, root, split or "", labels, pairs, ids, counted_as=counted_as, mapping=mapping
    )


def read_mapping(path: Path) -> dict[str, Any]:
    try:
        facts = read_yaml(path)
    except CardError as error:
        raise EvaluationError(str(error)) from error
    places = {"images", "labels", "image_ending", "label_ending"}
    if not isinstance(facts, dict) or not {"ids"} <= facts.keys() <= places | {"ids", "from"}:
        raise EvaluationError(
            f"{path.name} must have `ids`, and may have `from`, {', '.join(sorted(places))}"
        )
    ids, counted_as = facts["ids"], facts.get("from", {})
    if not isinstance(ids, dict) or not all(
        type(identity) is int and 0 <= identity < 1 << 16 and isinstance(name, str)
        for identity, name in ids.items()
    ):
        raise EvaluationError(
            f"{path.name}: `ids` maps 0 to 65535 to class names or ignore, as in {{0: road}}"
        )
    if not 1 <= len(set(ids.values()) - {"ignore"}) <= IGNORE:
        raise EvaluationError(f"{path.name}: `ids` names no class, or more than {IGNORE}")
    if not isinstance(counted_as, dict) or not all(
        isinstance(name, str) for pair in counted_as.items() for name in pair
    ):
        raise EvaluationError(f"{path.name}: `from` maps a model's class names to those of `ids`, or to none")
    if not all(isinstance(facts[key], str) for key in places & facts.keys()):
        raise EvaluationError(f"{path.name}: folders and endings are text")
    if facts.get("label_ending", "").lower().endswith((".jpg", ".jpeg")):
        raise EvaluationError(f"{path.name}: JPEG does not keep ids; labels are PNG, BMP or TIFF")
    return facts


DATASETS: dict[str, Callable[[Path, str | None], Dataset]] = {
    "cityscapes": cityscapes,
    "kitti": kitti,
    "camvid": camvid,
}


def find(place: Path, ending: str) -> dict[str, Path]:
    """Files below `place` by their name without `ending`; without an ending, images by their name without suffix."""
    found: dict[str, Path] = {}
    for path in sorted(place.rglob("*")):
        if path.name.endswith(ending) if ending else path.suffix.lower() in IMAGE_SUFFIXES:
            name = path.relative_to(place).as_posix()
            stem = name.removesuffix(ending or path.suffix)
            if stem in found:
                raise EvaluationError(f"{found[stem]} and {path} are two images of one name")
            found[stem] = path
    return found


def pair_up(
    images: Mapping[str, Path], truths: Mapping[str, Path], expected: str, looked_for: str
) -> tuple[Pair, ...]:
    """`expected` is a label file with * for an image's name; `looked_for` says what a whole split would be."""
    if not images and not truths:
        raise EvaluationError(f"nothing was found of {looked_for}")
    for these, those in ((images, truths), (truths, images)):
        alone = sorted(these.keys() - those.keys())
        if alone:
            partner = f"labels; expected {expected.replace('*', alone[0])}" if these is images else "image"
            raise EvaluationError(
                f"{len(alone)} of {len(these)} files have no partner: {these[alone[0]]} has no {partner}"
            )
    return tuple(Pair(images[stem], truths[stem]) for stem in sorted(images))


def indices(names: Sequence[str]) -> dict[str, int]:
    return {**{name: place for place, name in enumerate(names)}, "ignore": IGNORE}


def labels_for(names: Iterable[str], title: str) -> Labels:
    """The shipped labels of this set of classes in any order, or else these in the order of their first mention."""
    unique = tuple(dict.fromkeys(names))
    for known in map(read_labels, known_labels()):
        if set(known.names) == set(unique):
            return known
    return labels_of(unique, title)


def known_as(names: Sequence[str], own: Sequence[str]) -> Sequence[str]:
    """Names of a foreign graph's numbered classes: as many as the data set's are those, 19 are Cityscapes'.

    256 is a graph that gives ids and does not say of how many classes: the first of them are the data set's.
    """
    if list(names) != [f"class {index}" for index in range(len(names))]:
        return names
    if len(names) in (len(own), 256):
        return (*own, *names[len(own) :])
    return read_labels(BY_COUNT[len(names)]).names if len(names) in BY_COUNT else names


def shortened(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def ranges(values: Iterable[int]) -> str:
    """0, 1, 2, 255 as `0 to 2, 255`."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(f"{low}" if low == high else f"{low} to {high}" for low, high in runs)
