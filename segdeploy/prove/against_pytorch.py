"""An ONNX graph against the PyTorch network it stands for.

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

from segdeploy import scenes
from segdeploy.errors import ExportDisagrees
from segdeploy.graph.layers import logits_of
from segdeploy.graph.plugins import runnable, without_plugins
from segdeploy.model.card import ModelCard
from segdeploy.model.signature import Signature
from segdeploy.networks.interface import upsampled
from segdeploy.prove import agreement
from segdeploy.prove.agreement import MAX_LOGITS_RMS_FP16, Agreement
from segdeploy.run.inner_tensors import TapSession
from segdeploy.run.io import to_input
from segdeploy.run.ort import OrtSession
from segdeploy.size import Size

SLOTS_PROVEN = 3  # batch slots compared where the batch is open


@dataclass(frozen=True)
class Probe:
    """Frames, and what the plain network answers to each."""

    frames: list[NDArray[np.uint8]]
    references: list[Tensor]  # logits 1×C×h×w
    slots: int

    def place(self, turn: int, slot: int) -> int:
        """Which frame a batch slot gets: not the same one twice."""
        return (turn + slot) % len(self.frames)

    def inputs(self, turn: int, signature: Signature) -> NDArray[Any]:
        batch = np.stack([self.frames[self.place(turn, slot)] for slot in range(self.slots)])
        return to_input(signature, batch)


def make_probe(plain: nn.Module, card: ModelCard, signature: Signature) -> Probe:
    slots = signature.batch or SLOTS_PROVEN
    frames = probe_frames(min(slots, SLOTS_PROVEN) + 1, signature.size)
    return Probe(frames, [reference_logits(plain, frame, card) for frame in frames], slots)


def prove(model: ModelProto, path: Path, probe: Probe, signature: Signature) -> Agreement:
    """`model` as written to `path`, in ONNX Runtime: each batch slot with two different frames.

    Where nodes are TensorRT's alone, it is the same graph with what they compute in their place.
    """
    seen = []
    with runnable(path, model) as readable, OrtSession(readable) as session:
        for turn in (0, 1):
            answers = session.run(probe.inputs(turn, signature))
            for slot in range(probe.slots):
                seen.append(compare(probe.references[probe.place(turn, slot)], answers[slot], signature))
        if signature.batch is None:
            single = session.run(to_input(signature, probe.frames[0][None]))
            seen.append(compare(probe.references[0], single[0], signature))
    if signature.interface != "logits":
        seen.append(
            compare_inner_logits(without_plugins(model), probe.frames[0], probe.references[0], signature)
        )
    return agreement.total(seen)


def probe_frames(count: int, size: Size) -> list[NDArray[np.uint8]]:
    """Made street scenes, the same on every machine; the last one is noise, which reaches every corner of a net."""
    made = [scenes.make_scene(seed, size.height, size.width).image for seed in range(count - 1)]
    noise = np.random.default_rng(0).integers(0, 256, (size.height, size.width, 3), np.uint8)
    return [*made, noise]


def reference_logits(plain: nn.Module, frame: NDArray[np.uint8], card: ModelCard) -> Tensor:
    pixels = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float()
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (card.mean, card.std))
    with torch.inference_mode():
        logits: Tensor = plain((pixels - mean) / std)
    return logits


def compare(reference: Tensor, answer: NDArray[Any], signature: Signature) -> Agreement:
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
    """A graph that answers labels is also looked into: its logits, before the upsampling."""
    inputs = to_input(signature, frame[None]).repeat(signature.batch or 1, axis=0)
    ((_, answer),) = TapSession(model, [logits_of(model)]).run(inputs)
    return Agreement(0, 0, 0, *errors_of(reference, answer[:1]))


def demand(seen: Agreement, card: ModelCard, precision: str = "fp32") -> None:
    """Refuse a graph beyond its card's bounds."""
    if precision == "fp16":
        pixels, error, bound = card.min_pixel_agreement_fp16, seen.logits_rms, MAX_LOGITS_RMS_FP16
        allowed = f"{pixels:.2%} and {bound:.0e} root mean square in FP16"
    else:
        pixels, error, bound = card.min_pixel_agreement, seen.logits_error, card.max_logits_error
        allowed = f"{pixels:.2%} and {bound:.0e}"
    if seen.pixel_agreement >= pixels and (error or 0.0) <= bound:
        return
    raise ExportDisagrees(
        f"the exported graph disagrees with PyTorch: {seen}; the card {card.name!r} allows {allowed}. No file was"
        " written"
    )
