"""Compares what each way answers with the FP32 graph in ONNX Runtime, on the user's frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segdeploy.datasets.dataset import Dataset
from segdeploy.datasets.reading import read_pair
from segdeploy.model.labels import Labels
from segdeploy.picture.image import WRITTEN, Frame, LabelMap, find_images, read_frame
from segdeploy.prove.agreement import Agreement, total
from segdeploy.prove.choose import spread
from segdeploy.prove.confusion import Confusion
from segdeploy.prove.judge import ProbeCounts, Verdict
from segdeploy.prove.ledger import drop_interval, drop_of
from segdeploy.run.session import Session, segment

FRAMES = 48  # at the most


@dataclass(frozen=True)
class JudgedFrames:
    """Holds where the frames are, to be read one at a time; `dataset` has their truth, if there is any."""

    images: tuple[Path, ...] = ()
    dataset: Dataset | None = None
    folder: Path | None = None  # of the images

    def __len__(self) -> int:
        return len(self.images) if self.dataset is None else len(self.dataset)

    def read(self, place: int) -> tuple[Frame, LabelMap | None]:
        if self.dataset is None:
            return read_frame(self.images[place]), None
        return read_pair(self.dataset, place)


def frames_in(folder: Path, count: int = FRAMES) -> JudgedFrames:
    """Take up to `count` images of a folder, evenly spread."""
    found = list(find_images(folder, but=WRITTEN))
    return JudgedFrames(tuple(found[place] for place in spread(len(found), count)), folder=folder)


@dataclass(frozen=True)
class WayCost:
    """Says what a way costs: points of mIoU where there is truth, else per cent of the labels that change."""

    drop: float
    interval: tuple[float, float] | None  # 95 %, over other frames like these
    agreement: float  # share of equal labels
    miou: float | None


class Referee:
    """Holds the graph's own labels of each frame; `cost` runs another session on the same frames."""

    def __init__(self, session: Session, frames: JudgedFrames, progress: Callable[[str], None]) -> None:
        self.frames, self.progress = frames, progress
        labels: Labels = session.signature.labels
        dataset = frames.dataset
        self._lookup = None if dataset is None else dataset.lookup_from(labels)
        self._own: list[LabelMap] = []
        self.own = self._verdict(session, "the graph itself", keep=True)

    def cost(self, session: Session, words: str) -> WayCost:
        verdict = self._verdict(session, words)
        between = drop_interval(self.own, verdict)
        return WayCost(drop_of(self.own, verdict), between, verdict.agreement.pixel_agreement, verdict.miou)

    def _verdict(self, session: Session, words: str, keep: bool = False) -> Verdict:
        confusion = None if self.frames.dataset is None else Confusion(len(self.frames.dataset.labels.names))
        seen: list[Agreement] = []
        parts: list[ProbeCounts] = []
        for place in range(len(self.frames)):
            self.progress(f"{words}: frame {place + 1} of {len(self.frames)}")
            frame, truth = self.frames.read(place)
            labels = segment(session, frame).labels
            if keep:
                self._own.append(labels)
            equal = int(np.count_nonzero(labels == self._own[place]))
            seen.append(Agreement(1, labels.size, equal, None))
            parts.append(ProbeCounts(labels.size - equal, labels.size, self._score(confusion, truth, labels)))
        return Verdict(total(seen), confusion=confusion, each=tuple(parts))

    def _score(
        self, confusion: Confusion | None, truth: LabelMap | None, labels: LabelMap
    ) -> NDArray[np.int64] | None:
        dataset = self.frames.dataset
        if confusion is None or truth is None or dataset is None or self._lookup is None:
            return None
        one = Confusion(len(dataset.labels.names), dataset.labels.ignore)
        one.add(truth, self._lookup[labels])
        confusion.counts += one.counts
        return one.sums
