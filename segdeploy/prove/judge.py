"""Compares a changed graph with the one it came from, on the same frames: logits, labels and, with truth, mIoU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.graph.layers import argmax_is_over_last, logits_of
from segdeploy.model.labels import ids_type
from segdeploy.model.signature import Signature
from segdeploy.picture import image
from segdeploy.picture.image import Frame, LabelMap
from segdeploy.prove.agreement import Agreement, compare_logits, rms_of_logits, total
from segdeploy.prove.confusion import Confusion
from segdeploy.run.inner_tensors import TapSession
from segdeploy.run.io import as_labels, to_input

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Probe:
    """Holds a frame to judge on; `truth` has the classes that `Judge.translate` maps to."""

    frame: Frame
    truth: LabelMap | None = None


@dataclass(frozen=True)
class ProbeCounts:
    """Holds what one probe adds to a verdict."""

    changed: int  # pixels
    pixels: int
    sums: NDArray[np.int64] | None = None  # hits, there and predicted × classes; None without truth


@dataclass(frozen=True)
class Verdict:
    """Says how a graph differs from the reference over all probes, and how it scores."""

    agreement: Agreement  # pixels are counted at the frames' size
    kl: float = 0.0  # divergence of the class probabilities, averaged over the pixels
    confusion: Confusion | None = None  # None without truth
    each: tuple[ProbeCounts, ...] = ()  # of the probes

    @property
    def changes(self) -> list[int]:
        """List the labels that changed on each probe."""
        return [one.changed for one in self.each]

    @property
    def miou(self) -> float | None:
        """Average the IoU over the classes in the truth: elsewhere one wrong pixel would count as a lost class."""
        if self.confusion is None:
            return None
        there = self.confusion.counts.sum(axis=1) > 0
        return float(self.confusion.iou[there].mean())


class Judge:
    """Holds the reference's answers; `verdict` runs another graph on the same frames.

    Frames fill the slots of a fixed batch, so that every slot is judged. Logits are compared one frame at a time, and
    the reference's lie in a file, so that 150 classes at 1024x2048 fit into memory. A graph that gives labels is judged
    by them, one that gives logits by their arg-max at the frame's size.
    """

    def __init__(
        self,
        model: ModelProto,
        signature: Signature,
        probes: Sequence[Probe],
        *,
        classes: int | None = None,
        translate: LabelMap | None = None,
    ) -> None:
        self.signature = signature
        self.probes = list(probes)
        self.fitted = [image.fit(probe.frame, signature.size, kernel=signature.resize) for probe in probes]
        self.classes = classes or signature.classes
        own = np.arange(max(256, signature.classes)).astype(ids_type(signature.classes))
        self.translate: LabelMap = own if translate is None else translate
        self.tensors = [logits_of(model)]
        if signature.interface != "logits":
            self.tensors.append(signature.output.name)
        labels = signature.interface != "logits"
        self.classes_last = argmax_is_over_last(model) if labels else signature.logits_last
        self.labels: list[LabelMap] = []
        self.reference: list[NDArray[np.float32]] = []
        self.look_at(model)
        self.own = self.score_own()

    def on(self, places: Sequence[int]) -> Judge:
        """Give a judge on some of the probes, with the reference's answers that are there."""
        some = copy(self)
        some.probes = [self.probes[place] for place in places]
        some.fitted = [self.fitted[place] for place in places]
        some.reference = [self.reference[place] for place in places]
        some.labels = [self.labels[place] for place in places]
        some.own = some.score_own()
        return some

    def batches(self) -> Iterator[tuple[list[int], NDArray[Any]]]:
        """Yield each batch's places of probes and the graph's input; the last batch is filled by repeating frames."""
        slots = self.signature.batch or 1
        for first in range(0, len(self.fitted), slots):
            places = list(range(first, min(first + slots, len(self.fitted))))
            filled = np.stack([self.fitted[places[slot % len(places)]][0] for slot in range(slots)])
            yield places, to_input(self.signature, filled)

    def answers(self, model: ModelProto) -> Iterator[tuple[NDArray[np.float32], LabelMap]]:
        """Yield each probe's logits, and its labels at the frame's size."""
        session = TapSession(model, self.tensors)
        for places, inputs in self.batches():
            found = [values for _, values in session.run(inputs)]
            for slot, place in enumerate(places):
                logits = found[0][slot].astype(np.float32)
                if self.classes_last:
                    logits = np.moveaxis(logits, -1, 0)
                yield logits, self.labels_of(logits, found[-1][slot], place)

    def labels_of(self, logits: NDArray[np.float32], answer: NDArray[Any], place: int) -> LabelMap:
        size, geometry = self.signature.size, self.fitted[place][1]
        if self.signature.interface == "logits":
            return image.unfit_logits(logits, size, geometry, self.signature.align_corners)
        labels = as_labels(self.signature, answer)[0]
        return image.unfit(labels, geometry).copy()  # the next run overwrites the array

    def look_at(self, model: ModelProto) -> None:
        """Run the reference, and keep its answers."""
        for place, (logits, labels) in enumerate(self.answers(model)):
            if not place:
                with TemporaryFile() as file:
                    shape = (len(self.probes), *logits.shape)
                    self.reference = list(np.memmap(file, np.float32, "w+", shape=shape))
            self.reference[place][:] = logits
            self.labels.append(labels)

    def score_own(self) -> Verdict:
        """Score the reference itself."""
        confusion = self.empty_confusion()
        parts = tuple(
            ProbeCounts(0, labels.size, self.score(confusion, place, labels))
            for place, labels in enumerate(self.labels)
        )
        pixels = sum(labels.size for labels in self.labels)
        agreement = Agreement(len(self.probes), pixels, pixels, 0.0, 0.0)
        return Verdict(agreement, confusion=confusion, each=parts)

    def changes(self, model: ModelProto) -> Iterator[int]:
        """Yield how many labels change on each probe, run when it is asked for."""
        for place, (_, labels) in enumerate(self.answers(model)):
            yield labels.size - int(np.count_nonzero(labels == self.labels[place]))

    def verdict(self, model: ModelProto) -> Verdict:
        confusion, divergence = self.empty_confusion(), 0.0
        seen: list[Agreement] = []
        parts: list[ProbeCounts] = []
        for place, (logits, labels) in enumerate(self.answers(model)):
            reference, equal = self.reference[place], np.count_nonzero(labels == self.labels[place])
            divergence += mean_kl(reference, logits)
            errors = compare_logits(reference, logits), rms_of_logits(reference, logits)
            seen.append(Agreement(1, labels.size, int(equal), *errors))
            parts.append(
                ProbeCounts(labels.size - int(equal), labels.size, self.score(confusion, place, labels))
            )
        return Verdict(total(seen), divergence / len(self.probes), confusion, tuple(parts))

    def empty_confusion(self) -> Confusion | None:
        return Confusion(self.classes) if any(probe.truth is not None for probe in self.probes) else None

    def score(self, confusion: Confusion | None, place: int, labels: LabelMap) -> NDArray[np.int64] | None:
        truth = self.probes[place].truth
        if confusion is None or truth is None:
            return None
        one = Confusion(self.classes)
        one.add(truth, self.translate[labels])
        confusion.counts += one.counts
        return one.sums


def mean_kl(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
    first, second = log_softmax(reference), log_softmax(logits)
    return float((np.exp(first) * (first - second)).sum(0).mean())


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits - logits.max(0)
    normalised: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(0))
    return normalised
