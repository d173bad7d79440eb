"""Lists the labelled data sets that are known by name: where their files lie, and which split serves which purpose.

Choices, help texts and the folders that are searched for images come from this table. To add a data set, add a row here
and its classes in models/labels. Nothing heavy is imported, so that the command line can read the table for its help.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOLDER = "folder"  # any two folders, with a mapping of the user's own
SCENES = "scenes"  # made on the fly: a recipe names them, and a training


@dataclass(frozen=True)
class Layout:
    """Names the folders of images and of label files below a root, and their file endings; {split} is the split."""

    images: str
    labels: str
    image_ending: str  # empty: every image file
    label_ending: str
    values: Literal["ids", "places"] = "ids"  # label files hold the ids of the labels' file, or places in it

    @property
    def has_splits(self) -> bool:
        return "{split}" in self.images + self.labels

    def image_folder(self, root: Path, split: str) -> Path:
        return root / self.images.replace("{split}", split)

    def label_folder(self, root: Path, split: str) -> Path:
        return root / self.labels.replace("{split}", split)

    def in_words(self, root: Path, split: str) -> str:
        images, labels = self.image_folder(root, split), self.label_folder(root, split)
        return f"{images}/*{self.image_ending or '.*'} with {labels}/*{self.label_ending}"


@dataclass(frozen=True)
class KnownDataset:
    labels: str  # a file of models/labels: the classes, their ids, and the ids that are not scored
    splits: tuple[str, ...]
    scored_on: str  # the split that `evaluate` takes where none is named
    calibrated_on: str  # the same for `quantize`: another than the scored one, if it has labels
    layouts: tuple[Layout, ...]  # the first whose label files are found is taken
    split_of: Callable[[str], str] | None = None  # takes an image's name, where folders do not name the split


def camvid_split(stem: str) -> str:
    """Tell the split from a frame's name: SegNet's 367, 101 and 233 frames, which papers since have used."""
    drive, _, frame = stem.partition("_")
    if drive == "0016E5" and "07959" <= frame <= "08159":
        return "val"
    if drive == "Seq05VD" or (drive == "0001TP" and frame >= "008550"):
        return "test"
    return "train"


DATASETS = {
    "cityscapes": KnownDataset(
        "cityscapes",
        ("train", "val", "test"),
        scored_on="val",
        calibrated_on="train",
        layouts=(
            Layout("leftImg8bit/{split}", "gtFine/{split}", "_leftImg8bit.png", "_gtFine_labelIds.png"),
            Layout(
                "leftImg8bit/{split}",
                "gtFine/{split}",
                "_leftImg8bit.png",
                "_gtFine_labelTrainIds.png",
                "places",
            ),
        ),
    ),
    # Frame *_11 of each scene, which the scene flow benchmark adds to the same folder, has no labels; and of the splits
    # only training has any.
    "kitti": KnownDataset(
        "cityscapes",
        ("training", "testing"),
        scored_on="training",
        calibrated_on="training",
        layouts=(Layout("{split}/image_2", "{split}/semantic", "_10.png", "_10.png"),),
    ),
    "camvid": KnownDataset(
        "camvid",
        ("train", "val", "test"),
        scored_on="val",
        calibrated_on="train",
        layouts=(
            Layout("{split}", "{split}annot", ".png", ".png"),  # SegNet's: ids of the 11 classes
            Layout(
                "{split}", "{split}_labels", ".png", "_L.png"
            ),  # the original colours, in folders per split
            Layout("701_StillsRaw_full", "LabeledApproved_full", ".png", "_L.png"),  # as it was published
            Layout("images", "labels", ".png", "_L.png"),
        ),
        split_of=camvid_split,
    ),
}


def names_of_datasets() -> tuple[str, ...]:
    return (*DATASETS, FOLDER)


def calibration_split(name: str) -> str | None:
    return DATASETS[name].calibrated_on if name in DATASETS else None


def default_splits(use: Literal["scored_on", "calibrated_on"]) -> str:
    """List the default splits in words, as in `val of cityscapes and camvid, training of kitti`."""
    users: dict[str, list[str]] = {}
    for name, known in DATASETS.items():
        users.setdefault(getattr(known, use), []).append(name)
    return ", ".join(f"{split} of {' and '.join(names)}" for split, names in users.items())
