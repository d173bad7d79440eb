"""Opens what is learnt from and what is reported on."""

from __future__ import annotations

from pathlib import Path

from segdeploy.datasets.dataset import Dataset
from segdeploy.datasets.known import DATASETS, FOLDER, SCENES
from segdeploy.datasets.layouts import open_dataset
from segdeploy.datasets.made_scenes import make_scenes_in
from segdeploy.errors import RequestError


def learnt_and_reported(
    name: str,
    root: Path,
    mapping: Path | None,
    split: str | None,
    report_split: str | None,
    report_root: Path | None = None,
    *,
    folded: bool = False,
) -> tuple[Dataset, Dataset]:
    """Open both; two folders without splits need a second root, because nothing says which images are left out.

    `folded` images are all learnt from and all reported on, in turns.
    """
    if name == SCENES:  # they lie as Cityscapes does
        make_scenes_in(root)
        name = FOLDER if mapping else "cityscapes"
        split, report_split = split or "train", report_split or (None if folded else "val")
    if folded:
        if report_split or report_root:
            raise RequestError(
                "--folds reports on every image in turn; leave out --report-split and --report-root"
            )
        whole = open_dataset(
            name, root, split or (None if name == FOLDER else DATASETS[name].calibrated_on), mapping
        )
        return whole, whole
    if name == FOLDER:
        if report_root is None and report_split is None:
            raise RequestError(
                "images to report on are missing: --report-root DIR with other images, or --report-split NAME where the"
                " mapping's folders have {split}, or --folds K"
            )
        return open_dataset(name, root, split, mapping), open_dataset(
            name, report_root or root, report_split, mapping
        )
    known = DATASETS[name]
    learnt = open_dataset(name, root, split or known.calibrated_on, mapping)
    return learnt, open_dataset(name, report_root or root, report_split or known.scored_on, mapping)
