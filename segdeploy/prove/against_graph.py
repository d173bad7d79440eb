"""Compares an adopted graph with its original, both in ONNX Runtime, on the same frames.

The original is fed as its card says, and gives its own form of output. We resize its logits to the input's size in
numpy, independently of the nodes that do so in the adopted graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from segdeploy.model.signature import Signature
from segdeploy.picture.image import Frame
from segdeploy.prove import agreement
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.probes import probe_frames
from segdeploy.run.inner_tensors import TapSession
from segdeploy.run.io import to_input
from segdeploy.run.ort import OrtSession
from segdeploy.size import Size

SLOTS_PROVEN = 3  # batch slots compared where the batch is open


@dataclass(frozen=True)
class Original:
    """Holds a graph as it came, and says how to read its output.

    Where it was traced from a network, `network` computes in its place: that is then the original.
    """

    model: ModelProto
    signature: Signature  # how frames are fed to it
    output: str
    logits: str | None  # their tensor; None where only the labels are known
    last: bool  # the classes are the last axis of the logits
    output_last: bool  # the same for the output
    align_corners: bool
    cut: float | None  # for one channel: a logit above it is the second class
    cut_of_output: float | None  # the same for the output's values
    network: Callable[[NDArray[Any]], NDArray[Any]] | None = None

    @cached_property
    def session(self) -> TapSession:
        return TapSession(self.model, list(dict.fromkeys([self.output, *filter(None, [self.logits])])))

    def answer(self, frame: Frame) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
        """Give a frame's labels H×W, and its logits C×h×w."""
        batch = self.signature.batch or 1
        found = self.outputs_for(to_input(self.signature, frame[None]).repeat(batch, axis=0))
        logits = by_class(found[self.logits][:1], self.last, self.cut) if self.logits in found else None
        return self.labels_in(found[self.output][:1]), logits

    def outputs_for(self, inputs: NDArray[Any]) -> Mapping[str | None, NDArray[Any]]:
        """Give the output and the logits by name; a network gives its output only."""
        return {self.output: self.network(inputs)} if self.network else dict(self.session.run(inputs))

    def labels_in(self, output: NDArray[Any]) -> NDArray[np.int64]:
        size = self.signature.size
        if output.dtype.kind != "f" or (
            output.size == size.height * size.width and self.cut_of_output is None
        ):
            return output.reshape(size.height, size.width).astype(np.int64)
        scores = by_class(output, self.output_last, self.cut_of_output)
        return labels_of_scores(enlarged_bilinearly(scores, size, self.align_corners))


def by_class(values: NDArray[Any], last: bool, cut: float | None) -> NDArray[np.float32]:
    """Give one image's scores as C×h×w; a `cut` makes two classes of one channel, the first with a score of 0."""
    image: NDArray[np.float32] = values[0].astype(np.float32)
    if last:
        image = image.transpose(2, 0, 1)
    return image if cut is None else np.concatenate([np.zeros_like(image), image - np.float32(cut)])


def labels_of_scores(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = scores.argmax(0)
    return labels


def compare_with_original(
    model: ModelProto, path: Path, signature: Signature, logits: str, original: Original
) -> Agreement:
    """Compare `model`, as written to `path`, in each batch slot on two frames.

    `logits` names its logits tensor, which is compared too; it is "" where there is none.
    """
    slots = signature.batch or SLOTS_PROVEN
    frames = probe_frames(min(slots, SLOTS_PROVEN) + 1, signature.size)
    expected = [original.answer(frame) for frame in frames]
    seen = []
    with OrtSession(path) as session:
        for turn in (0, 1):
            places = [(turn + slot) % len(frames) for slot in range(slots)]
            answers = session.run(to_input(signature, np.stack([frames[place] for place in places])))
            seen += [
                compare_slot(expected[place], answer, signature)
                for place, answer in zip(places, answers, strict=True)
            ]
    if logits and expected[0][1] is not None:
        inputs = to_input(signature, frames[0][None]).repeat(signature.batch or 1, axis=0)
        ((_, inner),) = TapSession(model, [logits]).run(inputs)
        seen.append(Agreement(0, 0, 0, *errors_between(expected[0][1], inner[0])))
    return agreement.total(seen)


def compare_slot(
    expected: tuple[NDArray[np.int64], NDArray[np.float32] | None], answer: NDArray[Any], signature: Signature
) -> Agreement:
    labels, logits = expected
    errors: tuple[float | None, float | None] = None, None
    if signature.interface == "logits":
        if logits is not None:
            errors = errors_between(logits, answer)
        answer = labels_of_scores(enlarged_bilinearly(answer, signature.size, signature.align_corners))
    equal = int(np.count_nonzero(labels == answer.reshape(labels.shape)))
    return Agreement(1, labels.size, equal, *errors)


def errors_between(expected: NDArray[np.float32], answer: NDArray[Any]) -> tuple[float, float]:
    return agreement.compare_logits(expected, answer), agreement.rms_of_logits(expected, answer)


def enlarged_bilinearly(logits: NDArray[np.float32], size: Size, align_corners: bool) -> NDArray[np.float32]:
    """Interpolate C×h×w bilinearly to C×H×W."""
    for axis, target in ((1, size.height), (2, size.width)):
        source = logits.shape[axis]
        if source == target:
            continue
        if align_corners:
            place = np.arange(target) * ((source - 1) / max(target - 1, 1))
        else:
            place = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
        lower = np.minimum(place.astype(np.int64), max(source - 2, 0))
        share = (place - lower).astype(np.float32)
        share = share[:, None] if axis == 1 else share
        upper = np.minimum(lower + 1, source - 1)
        logits = logits.take(lower, axis) * (1 - share) + logits.take(upper, axis) * share
    return logits
