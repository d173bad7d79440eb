"""Checkpoint to ONNX, then the ONNX against the network it came from; on disagreement no file is left.

The reference is the *plain* network in PyTorch, fed as the checkpoint's own pre-processing would feed it. So one
comparison covers every rewrite, the exporter, the folded normalisation and the graph's upsampling and arg-max.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from segdeploy.errors import MissingExtra

try:
    import onnxscript  # noqa: F401 - torch.onnx.export needs it
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn
except ImportError as error:
    raise MissingExtra(error.name or "torch", "export", "exporting") from error

from segdeploy import __version__, agreement, families, files, scenes
from segdeploy.agreement import Agreement
from segdeploy.card import ModelCard, card_for_checkpoint, read_card
from segdeploy.errors import CardError, ExportDisagrees, OutputError, RequestError
from segdeploy.families.checkpoints import Checkpoint, read_checkpoint
from segdeploy.graph.tidy import tidy
from segdeploy.record import ArtifactRecord
from segdeploy.sessions import prepared
from segdeploy.sessions.ort import OrtSession, run_bytes
from segdeploy.signature import INTERFACES, ONE_SCALE, TENSOR_NAMES, Signature, TensorFacts
from segdeploy.size import Size

Progress = Callable[[str], None]
OPSET = 18  # what the exporter writes; `tidy` lowers it to 17 where it can
SLOTS_PROVEN = 3  # batch slots compared where the batch is open


@dataclass(frozen=True)
class Exported:
    path: Path
    record: ArtifactRecord
    agreement: Agreement


def export_onnx(
    source: str | Path,
    *,
    card: str | None = None,
    size: Size | None = None,
    interface: str = "nvinfer",
    batch: int | None = 1,
    revision: str | None = None,
    output: Path = Path(),
    command: str = "",
    progress: Progress = lambda step: None,
) -> Exported:
    """Export `source` into the folder (or the .onnx) `output`; `batch` None leaves the batch open."""
    if interface not in INTERFACES:
        raise RequestError(f"{interface!r} is not an interface; known: {', '.join(INTERFACES)}")
    if batch is not None and not 1 <= batch <= 1024:
        raise RequestError(f"a batch of {batch} was asked for; it is 1 to 1024, or dynamic")
    progress("reading the checkpoint")
    checkpoint = read_checkpoint(source, revision)
    model_card = card_of(checkpoint, card)
    networks = families.build(checkpoint)
    size = size or model_card.size
    signature = signature_of(model_card, interface, size, batch)
    path = output if output.suffix == ".onnx" else output / f"{model_card.name}.{size}.{interface}.onnx"
    files.make_folder(path.parent)
    progress("tracing the network")
    model = trace(networks.deployed, model_card, signature)
    describe(model, signature, checkpoint)
    record_facts = facts_of(model, signature, model_card, checkpoint, command)
    with files.replacing(path) as part:
        save(model, part)
        progress("comparing ONNX Runtime with PyTorch")
        seen = prove(model, part, networks.plain, model_card, signature)
        demand(seen, model_card)
        record = ArtifactRecord(
            path.name,
            files.digest_of(part),
            agreement=seen.as_json() | {"with": "PyTorch FP32"},
            **record_facts,
        )
        record.write(path.parent)
    return Exported(path, record, seen)


def card_of(checkpoint: Checkpoint, name: str | None) -> ModelCard:
    """The card that was asked for, the shipped one this checkpoint belongs to, or one made from its own files."""
    if name is None:
        return card_for_checkpoint(checkpoint.source, checkpoint.config, checkpoint.preprocessor)
    card = read_card(name)
    classes = len(checkpoint.config["id2label"])
    if classes != len(card.labels.names):
        raise CardError(
            f"{checkpoint.source} predicts {classes} classes, the card {card.name!r} has {len(card.labels.names)}"
            f" ({card.labels.name}); leave out --card to take the checkpoint's own labels"
        )
    return card


def signature_of(card: ModelCard, interface: str, size: Size, batch: int | None) -> Signature:
    height, width = size.height, size.width
    input_name, output_name = TENSOR_NAMES[interface]
    if interface == "frames":
        eaten = TensorFacts(input_name, "uint8", (batch, height, width, 3))
    else:
        eaten = TensorFacts(input_name, "float32", (batch, 3, height, width))
    answered = {
        "nvinfer": TensorFacts(output_name, "int64", (batch, 1, height, width)),
        "frames": TensorFacts(output_name, "uint8", (batch, height, width)),
        "logits": TensorFacts(
            output_name, "float32", (batch, len(card.labels.names), -(-height // 4), -(-width // 4))
        ),
    }[interface]
    scale = 1.0 if interface == "frames" else ONE_SCALE
    return Signature(
        interface, eaten, answered, size, batch, card.mean, (scale,) * 3, card.labels, card.resize, card.name
    )


class WithInterface(nn.Module):
    """The network between the input and the output that an interface promises."""

    def __init__(self, network: families.Deployed, card: ModelCard, signature: Signature) -> None:
        super().__init__()
        self.network = network
        self.interface = signature.interface
        self.mean = nn.Buffer(torch.tensor(card.mean).reshape(1, 3, 1, 1))

    def forward(self, given: Tensor) -> Tensor:
        if self.interface != "frames":
            logits = self.network(given)
            if self.interface == "logits":
                return logits
            return upsampled(logits, given.shape[-2:]).argmax(1, keepdim=True)
        pixels = given.float().permute(0, 3, 1, 2) - self.mean  # TensorRT computes with uint8 only to cast it
        return upsampled(self.network(pixels), pixels.shape[-2:]).argmax(1).to(torch.uint8)


def upsampled(logits: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def trace(deployed: families.Deployed, card: ModelCard, signature: Signature) -> ModelProto:
    deployed.scale_input(torch.tensor(card.std).reciprocal() / torch.tensor(signature.scale))
    whole = WithInterface(deployed, card, signature).eval()
    shape = tuple(side or 1 for side in (1, *signature.input.shape[1:]))
    example = torch.zeros(shape, dtype=torch.uint8 if signature.interface == "frames" else torch.float32)
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)  # it reports each torchvision operator that it cannot register
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(whole, (example,), dynamo=True, opset_version=OPSET, verbose=False)
    finally:
        noisy.setLevel(level)
    if program is None:
        raise ExportDisagrees("torch.onnx.export gave no program")
    return tidy(program.model_proto, signature.input.name, signature.output.name, signature.batch)


def describe(model: ModelProto, signature: Signature, checkpoint: Checkpoint) -> None:
    facts = signature.metadata() | {
        "segdeploy.version": __version__,
        "segdeploy.weights": checkpoint.digest,
        "segdeploy.precision": "fp32",
    }
    onnx.helper.set_model_props(model, facts)
    model.producer_name, model.producer_version = "segdeploy", __version__


def facts_of(
    model: ModelProto, signature: Signature, card: ModelCard, checkpoint: Checkpoint, command: str
) -> dict[str, Any]:
    return {
        "card": card.name,
        "interface": signature.interface,
        "size": str(signature.size),
        "batch": signature.batch,
        "precision": "fp32",
        "opset": model.opset_import[0].version,
        "normalisation": {
            "mean": list(card.mean),
            "std": list(card.std),
            "input_scale": list(signature.scale),
        },
        "resize": card.resize,
        "classes": list(card.labels.names),
        "source": {
            "checkpoint": checkpoint.source,
            "layout": checkpoint.layout,
            "weights": checkpoint.digest,
            "licence": card.licence,
        },
        "cost": {"nodes": len(model.graph.node), **Counter(node.op_type for node in model.graph.node)},
        "versions": {"torch": torch.__version__, "onnx": onnx.__version__},
        "command": command,
    }


def save(model: ModelProto, path: Path) -> None:
    needed = model.ByteSize()
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OutputError(
            f"{path.parent} has {free / 1e6:.1f} MB free and the graph needs {needed / 1e6:.1f} MB"
        )
    path.write_bytes(model.SerializeToString())


# ---- the proof -------------------------------------------------------------------------------------------------


def prove(
    model: ModelProto, path: Path, plain: nn.Module, card: ModelCard, signature: Signature
) -> Agreement:
    """The written file in ONNX Runtime, each batch slot with two different frames, against `plain` in PyTorch."""
    slots = signature.batch or SLOTS_PROVEN
    frames = probe_frames(min(slots, SLOTS_PROVEN) + 1, signature.size)
    rounds = [np.stack([frames[(slot + turn) % len(frames)] for slot in range(slots)]) for turn in (0, 1)]
    references = [reference_logits(plain, frame, card) for frame in frames]
    seen = []
    with OrtSession(path) as session:
        for turn, batch in enumerate(rounds):
            answers = session.run(prepared(signature, batch))
            for slot in range(slots):
                reference = references[(slot + turn) % len(frames)]
                seen.append(compare(reference, answers[slot], signature))
        if signature.batch is None:
            single = session.run(prepared(signature, frames[0][None]))
            seen.append(compare(references[0], single[0], signature))
    if signature.interface != "logits":
        seen.append(compare_inner_logits(model, frames[0], references[0], signature))
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
    expected = upsampled(reference, size).argmax(1).numpy()
    error = None
    if signature.interface == "logits":
        error = agreement.compare_logits(reference.numpy(), answer[None])
        answer = upsampled(torch.from_numpy(answer[None]), size).argmax(1).numpy()
    labels = answer.reshape(expected.shape)
    return Agreement(1, expected.size, int(np.count_nonzero(expected == labels)), error)


def compare_inner_logits(
    model: ModelProto, frame: NDArray[np.uint8], reference: Tensor, signature: Signature
) -> Agreement:
    """A graph that answers labels is also looked into: its logits, before the upsampling."""
    inner = inner_logits_name(model)
    answer = run_to(model, inner, prepared(signature, frame[None]).repeat(signature.batch or 1, axis=0))
    return Agreement(0, 0, 0, agreement.compare_logits(reference.numpy(), answer[:1]))


def inner_logits_name(model: ModelProto) -> str:
    made_by = {name: node for node in model.graph.node for name in node.output}
    node = made_by[model.graph.output[0].name]
    while node.op_type != "Resize":
        node = made_by[node.input[0]]
    return str(node.input[0])


def run_to(model: ModelProto, tensor: str, inputs: NDArray[Any]) -> NDArray[Any]:
    opened = ModelProto()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    opened.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
    return run_bytes(opened.SerializeToString(), inputs)


def demand(seen: Agreement, card: ModelCard) -> None:
    """Refuse a graph beyond its card's bounds."""
    error = 0.0 if seen.logits_error is None else seen.logits_error
    if seen.pixel_agreement >= card.min_pixel_agreement and error <= card.max_logits_error:
        return
    raise ExportDisagrees(
        f"the exported graph disagrees with PyTorch: {seen}; the card {card.name!r} allows"
        f" {card.min_pixel_agreement:.2%} and {card.max_logits_error:.0e}. No file was written"
    )
