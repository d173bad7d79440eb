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
    listed: str = ""  # a file with the names of the split's images, one a line, where folders hold all splits

    @property
    def has_splits(self) -> bool:
        return "{split}" in self.images + self.labels + self.listed

    def image_folder(self, root: Path, split: str) -> Path:
        return root / self.images.replace("{split}", split)

    def label_folder(self, root: Path, split: str) -> Path:
        return root / self.labels.replace("{split}", split)

    def in_words(self, root: Path, split: str) -> str:
        images, labels = self.image_folder(root, split), self.label_folder(root, split)
        words = f"{images}/*{self.image_ending or '.*'} with {labels}/*{self.label_ending}"
        return words + (f" and {self.list_file(root, split)}" if self.listed else "")

    def list_file(self, root: Path, split: str) -> Path:
        return root / self.listed.replace("{split}", split)


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
    # ADEChallengeData2016. 0 in its label files is "other", which is not scored: "reduce_zero_label" elsewhere.
    "ade20k": KnownDataset(
        "ade20k",
        ("training", "validation"),
        scored_on="validation",
        calibrated_on="training",
        layouts=(Layout("images/{split}", "annotations/{split}", ".jpg", ".png"),),
    ),
    # The classes are Cityscapes' 19, by their places; the second layout is the older archive's.
    "bdd100k": KnownDataset(
        "cityscapes",
        ("train", "val", "test"),
        scored_on="val",
        calibrated_on="train",
        layouts=(
            Layout("images/10k/{split}", "labels/sem_seg/masks/{split}", ".jpg", ".png", "places"),
            Layout("seg/images/{split}", "seg/labels/{split}", ".jpg", "_train_id.png", "places"),
        ),
    ),
    # Of version 1.2's classes; version 2.0's archive has these labels too, in a folder of their own.
    "mapillary": KnownDataset(
        "mapillary-vistas",
        ("training", "validation", "testing"),
        scored_on="validation",
        calibrated_on="training",
        layouts=(
            Layout("{split}/images", "{split}/v1.2/labels", ".jpg", ".png"),
            Layout("{split}/images", "{split}/labels", ".jpg", ".png"),
        ),
    ),
    # Indices in palettes; 255 is the border of an object. The root is VOC2012, or the folder with VOCdevkit.
    "voc": KnownDataset(
        "voc",
        ("train", "val", "trainval"),
        scored_on="val",
        calibrated_on="train",
        layouts=tuple(
            Layout(
                f"{place}JPEGImages",
                f"{place}SegmentationClass",
                ".jpg",
                ".png",
                listed=f"{place}ImageSets/Segmentation/{{split}}.txt",
            )
            for place in ("", "VOCdevkit/VOC2012/")
        ),
    ),
    # The pixel maps of 164k, whose ids have gaps, and mmsegmentation's files of the 171 classes' places.
    "coco-stuff": KnownDataset(
        "coco-stuff",
        ("train2017", "val2017"),
        scored_on="val2017",
        calibrated_on="train2017",
        layouts=(
            Layout("images/{split}", "annotations/{split}", ".jpg", "_labelTrainIds.png", "places"),
            Layout("images/{split}", "stuffthingmaps/{split}", ".jpg", ".png"),
            Layout("{split}", "stuffthingmaps/{split}", ".jpg", ".png"),
            Layout("images/{split}", "annotations/{split}", ".jpg", ".png"),
        ),
    ),
}


def names_of_datasets() -> tuple[str, ...]:
    return (*DATASETS, FOLDER)


def calibration_split(name: str) -> str | None:
    return DATASETS[name].calibrated_on if name in DATASETS else None


def default_splits(use: Literal["scored_on", "calibrated_on"]) -> str:
    """List the default splits in words, as in `val of cityscapes, camvid; training of kitti`."""
    users: dict[str, list[str]] = {}
    for name, known in DATASETS.items():
        users.setdefault(getattr(known, use), []).append(name)
    return "; ".join(f"{split} of {', '.join(names)}" for split, names in users.items())
