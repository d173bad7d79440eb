"""What a changed graph costs against the one it came from, on the same frames: logits, labels and, with truth, mIoU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segdeploy import image
from segdeploy.agreement import compare_logits
from segdeploy.evaluate.confusion import Confusion
from segdeploy.graph.layers import logits_of
from segdeploy.image import Frame, LabelMap
from segdeploy.sessions import prepared
from segdeploy.sessions.taps import TapSession
from segdeploy.signature import Signature

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Probe:
    """A frame to judge on; `truth` in the classes that `Judge.translate` gives."""

    frame: Frame
    truth: LabelMap | None = None


@dataclass(frozen=True)
class Verdict:
    kl: float  # mean over the pixels, of the class probabilities
    logits_error: float  # largest |Δlogit| as a share of the reference's range
    pixel_agreement: float  # at the frame's size
    confusion: Confusion | None  # None without truth

    @property
    def miou(self) -> float | None:
        """Over the classes that the truth shows: of others the first wrong pixel would count as a whole class lost."""
        if self.confusion is None:
            return None
        there = self.confusion.counts.sum(axis=1) > 0
        return float(self.confusion.iou[there].mean())


class Judge:
    """Holds the reference's answers; `verdict` runs another graph on the same frames."""

    def __init__(
        self,
        model: ModelProto,
        signature: Signature,
        probes: Sequence[Probe],
        *,
        classes: int | None = None,
        translate: NDArray[np.uint8] | None = None,
    ) -> None:
        self.signature = signature
        self.tensor = logits_of(model)
        self.probes = list(probes)
        self.fitted = [image.fit(probe.frame, signature.size, kernel=signature.resize) for probe in probes]
        self.classes = classes or signature.classes
        self.translate = np.arange(256, dtype=np.uint8) if translate is None else translate
        self.reference = self.logits(model)
        self.labels = [self.labels_of(one, index) for index, one in enumerate(self.reference)]
        self.own = self.compared(self.reference, self.labels)

    def logits(self, model: ModelProto) -> list[NDArray[np.float32]]:
        session = TapSession(model, [self.tensor])
        answers = []
        for frame, _ in self.fitted:
            inputs = prepared(self.signature, np.repeat(frame[None], self.signature.batch or 1, axis=0))
            ((_, logits),) = session.run(inputs)
            answers.append(logits[0].astype(np.float32))
        return answers

    def labels_of(self, logits: NDArray[np.float32], index: int) -> LabelMap:
        return image.unfit_logits(logits, self.signature.size, self.fitted[index][1])

    def verdict(self, model: ModelProto) -> Verdict:
        answers = self.logits(model)
        return self.compared(answers, [self.labels_of(one, index) for index, one in enumerate(answers)])

    def compared(self, answers: list[NDArray[np.float32]], labels: list[LabelMap]) -> Verdict:
        equal = pixels = 0
        divergence, error = [], 0.0
        confusion = Confusion(self.classes) if any(one.truth is not None for one in self.probes) else None
        for index, (logits, found) in enumerate(zip(answers, labels, strict=True)):
            reference = self.reference[index]
            divergence.append(mean_kl(reference, logits))
            error = max(error, compare_logits(reference, logits))
            equal += int(np.count_nonzero(found == self.labels[index]))
            pixels += found.size
            truth = self.probes[index].truth
            if confusion is not None and truth is not None:
                confusion.add(truth, self.translate[found])
        return Verdict(float(np.mean(divergence)), error, equal / pixels, confusion)


def mean_kl(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
    first, second = log_softmax(reference), log_softmax(logits)
    return float((np.exp(first) * (first - second)).sum(0).mean())


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits - logits.max(0)
    normalised: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(0))
    return normalised
