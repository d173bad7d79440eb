"""Compares an ONNX graph with the PyTorch network that it was exported from.

The reference is the *plain* network in PyTorch, fed as the checkpoint's own pre-processing would feed it. So one
comparison covers every rewrite, the exporter, the folded normalisation and the graph's upsampling and arg-max.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from segdeploy.errors import MissingExtra

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise MissingExtra("torch", "export", "proving a graph") from error

from segdeploy.graph.layers import logits_of
from segdeploy.graph.open_sizes import fixed_at, has_several
from segdeploy.graph.plugins import runnable, without_plugins
from segdeploy.model.card import ModelCard
from segdeploy.model.signature import Signature
from segdeploy.networks.interface import upsampled
from segdeploy.picture.image import Frame
from segdeploy.prove import agreement
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.probes import probe_frames
from segdeploy.run.inner_tensors import TapSession
from segdeploy.run.io import to_input
from segdeploy.run.ort import OrtSession

SLOTS_PROVEN = 3  # batch slots compared where the batch is open


@dataclass(frozen=True)
class References:
    """Holds frames, and the plain network's logits for each."""

    signature: Signature
    frames: list[Frame]
    logits: list[Tensor]  # 1×C×h×w
    slots: int

    def place(self, turn: int, slot: int) -> int:
        """Say which frame a batch slot gets: another one in each turn."""
        return (turn + slot) % len(self.frames)

    def inputs(self, turn: int) -> NDArray[Any]:
        batch = np.stack([self.frames[self.place(turn, slot)] for slot in range(self.slots)])
        return to_input(self.signature, batch)


def make_references(plain: nn.Module, card: ModelCard, signature: Signature) -> References:
    slots = signature.batch or SLOTS_PROVEN
    frames = probe_frames(min(slots, SLOTS_PROVEN) + 1, signature.size)
    return References(signature, frames, [reference_logits(plain, frame, card) for frame in frames], slots)


def compare_with_pytorch(model: ModelProto, path: Path, references: References) -> Agreement:
    """Compare `model`, as written to `path`, in ONNX Runtime, in each batch slot on two frames.

    Plugins that only TensorRT has are replaced by standard nodes that compute the same.
    """
    signature, frames, logits = references.signature, references.frames, references.logits
    seen = []
    with runnable(path, model) as readable, OrtSession(readable) as session:
        for turn in (0, 1):
            answers = session.run(references.inputs(turn))
            for slot in range(references.slots):
                seen.append(compare_answer(logits[references.place(turn, slot)], answers[slot], signature))
        if signature.batch is None:
            single = session.run(to_input(signature, frames[0][None]))
            seen.append(compare_answer(logits[0], single[0], signature))
    if signature.interface != "logits":
        inner = fixed_at(model, signature.input.shape) if has_several(model) else model
        seen.append(compare_inner_logits(without_plugins(inner), frames[0], logits[0], signature))
    return agreement.total(seen)


def reference_logits(plain: nn.Module, frame: NDArray[np.uint8], card: ModelCard) -> Tensor:
    pixels = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float()
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (card.mean, card.std))
    with torch.inference_mode():
        logits: Tensor = plain((pixels - mean) / std)
    return logits


def compare_answer(reference: Tensor, answer: NDArray[Any], signature: Signature) -> Agreement:
    size = torch.Size((signature.size.height, signature.size.width))
    aligned = signature.align_corners
    expected = upsampled(reference, size, aligned).argmax(1).numpy()
    errors: tuple[float | None, float | None] = None, None
    if signature.interface == "logits":
        errors = errors_of(reference, answer[None])
        answer = upsampled(torch.from_numpy(answer[None]), size, aligned).argmax(1).numpy()
    labels = answer.reshape(expected.shape)
    return Agreement(1, expected.size, int(np.count_nonzero(expected == labels)), *errors)


def errors_of(reference: Tensor, answer: NDArray[Any]) -> tuple[float, float]:
    expected = reference.numpy()
    return agreement.compare_logits(expected, answer), agreement.rms_of_logits(expected, answer)


def compare_inner_logits(
    model: ModelProto, frame: NDArray[np.uint8], reference: Tensor, signature: Signature
) -> Agreement:
    """Compare the logits before the upsampling, which a graph that gives labels holds inside."""
    inputs = to_input(signature, frame[None]).repeat(signature.batch or 1, axis=0)
    ((_, answer),) = TapSession(model, [logits_of(model, reference.shape[2:])]).run(inputs)
    return Agreement(0, 0, 0, *errors_of(reference, answer[:1]))
