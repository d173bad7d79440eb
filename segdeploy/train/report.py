"""Describes a finished training: what went in, what was measured, and what came out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from segdeploy.model.record import LedgerStep
from segdeploy.train.recipe import TrainingRecipe


@dataclass(frozen=True)
class ClassScore:
    name: str
    iou: float | None  # None: neither in the truth nor predicted


@dataclass(frozen=True)
class Reported:
    """Holds the scores on images that nothing was chosen by."""

    split: str
    images: int
    miou: float
    pixel_accuracy: float
    low: float  # of the mIoU's interval over the choice of images
    high: float
    classes: tuple[ClassScore, ...]

    def __str__(self) -> str:
        return (
            f"mIoU {100 * self.miou:.2f} % ({100 * self.low:.2f} to {100 * self.high:.2f}),"
            f" pixel accuracy {100 * self.pixel_accuracy:.2f} %"
        )


@dataclass(frozen=True)
class Training:
    schema: int
    start: str  # the checkpoint, as it was named
    start_digest: str
    licence: str
    teacher: str | None
    dataset: str
    dataset_digest: str
    images: int
    watched_images: int
    unlabelled_images: int  # whose answers only a teacher gave
    classes_kept: tuple[str, ...]  # whose classifier weights the start had
    classes_drawn: tuple[str, ...]
    recipe: TrainingRecipe
    before: float  # mIoU of the start on the watched images
    best_step: int
    best_miou: float  # on the watched images
    reported: Reported
    seconds: float
    command: str
    history: tuple[dict[str, Any], ...]
    versions: dict[str, str]
    ledger: tuple[LedgerStep, ...]  # from the first weights that segdeploy trained on
    weights: str = ""  # the digest of their file

    def as_text(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
