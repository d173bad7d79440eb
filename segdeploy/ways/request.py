"""Says what is tuned, on which frames, and what a way may lose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segdeploy.convert.int8.job import MAX_DISAGREEMENT, MAX_DROP
from segdeploy.datasets.dataset import Dataset
from segdeploy.model.card import ModelCard
from segdeploy.model.tuned import GOALS
from segdeploy.ways.accuracy import JudgedFrames

SECONDS = 2.0  # for each way


@dataclass(frozen=True)
class TuneRequest:
    model: Path
    frames: JudgedFrames | None = None  # None: only what answers as the graph does is measured
    max_drop: float | None = None  # points of mIoU with truth, per cent of the labels without
    goal: str = GOALS[0]
    output: Path | None = None  # for tuned.json, and for all that was made
    card: ModelCard | None = None
    seconds: float = SECONDS
    calibration: Dataset | None = None  # what int8 is calibrated on, where that is not the frames

    @property
    def has_truth(self) -> bool:
        return self.frames is not None and self.frames.dataset is not None

    @property
    def limit(self) -> float:
        usual = MAX_DROP if self.has_truth else MAX_DISAGREEMENT
        return usual if self.max_drop is None else self.max_drop

    @property
    def unit(self) -> str:
        return "points of mIoU lost" if self.has_truth else "% of the labels changed"
