"""Checkpoint to ONNX, then the ONNX against the network it came from; on disagreement no file is left."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import onnx
from onnx import ModelProto

from segdeploy.errors import MissingExtra

try:
    import onnxscript  # noqa: F401 - torch.onnx.export needs it
    import torch
except ImportError as error:
    raise MissingExtra(error.name or "torch", "export", "exporting") from error

from segdeploy import files, networks
from segdeploy.errors import ExportDisagrees, OutputError, RequestError
from segdeploy.given import as_optional_size, as_path
from segdeploy.graph.fp16 import fp32_nodes, rounding, to_fp16
from segdeploy.graph.plugins import plugins_of
from segdeploy.graph.precision import PRECISION, shares_of
from segdeploy.graph.tidy import tidy
from segdeploy.model.card import ModelCard
from segdeploy.model.record import ArtifactRecord, ArtifactSource, Normalisation, record_path
from segdeploy.model.signature import INTERFACES, Signature
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.family import Checkpoint, DeployedNetwork
from segdeploy.networks.interface import WithInterface, card_of, signature_of
from segdeploy.prove.against_pytorch import Probe, demand, make_probe, prove
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.ledger import exported_step, node_counts
from segdeploy.prove.ranges import first_not_finite, measure_ranges
from segdeploy.size import Size
from segdeploy.version import __version__

Progress = Callable[[str], None]
REFERENCE = "PyTorch FP32"
OPSET = 18  # what the exporter writes; `tidy` lowers it to 17 where it can


@dataclass(frozen=True)
class Exported:
    path: Path
    record: ArtifactRecord
    agreement: Agreement

    def __str__(self) -> str:
        return f"{self.path}: {self.record.agreement_in_words}"


def export_onnx(
    source: str | Path,
    *,
    card: str | None = None,
    size: str | Size | None = None,
    interface: str = "nvinfer",
    batch: int | None = 1,
    fp16: bool = False,
    revision: str | None = None,
    output: str | PathLike[str] = ".",
    command: str = "",
    progress: Progress = lambda step: None,
    **options: str | bool | None,
) -> Exported:
    """Export `source` into the folder (or the .onnx) `output`; `batch` None leaves the batch open.

    `options` are those that the checkpoint's family declares (`msda`, `any_task` of a Mask2Former); another family's
    are refused. None and False ask for nothing.
    """
    wanted, output = as_optional_size(size, "size"), as_path(output, "output")
    if interface not in INTERFACES:
        raise RequestError(f"{interface!r} is not an interface; known: {', '.join(INTERFACES)}")
    if batch is not None and not 1 <= batch <= 1024:
        raise RequestError(f"a batch of {batch} was asked for; it is 1 to 1024, or dynamic")
    progress("reading the checkpoint")
    asked = {name: value for name, value in options.items() if value is not None and value is not False}
    checkpoint = read_checkpoint(source, revision, asked)
    model_card = card_of(checkpoint, card)
    pair = networks.build(checkpoint)
    size = wanted or model_card.size
    signature = signature_of(model_card, interface, size, batch, pair.deployed.output)
    name = f"{model_card.name}.{size}.{interface}{'.fp16' if fp16 else ''}.onnx"
    path = output if output.suffix == ".onnx" else output / name
    files.make_folder(path.parent)
    progress("tracing the network")
    pair.deployed.fit(size, checkpoint.options)
    model = trace(pair.deployed, model_card, signature)
    describe(model, signature, checkpoint)
    with files.replacing_together(record_path(path), path) as [beside, part]:
        save(model, part)
        progress("comparing ONNX Runtime with PyTorch")
        probe = make_probe(pair.plain, model_card, signature)
        seen = prove(model, part, probe, signature)
        demand(seen, model_card)
        ledger = [exported_step("fp32", seen, compared_with(model), shares_of(model))]
        if fp16:
            progress("writing FP16, and comparing it with PyTorch")
            model, seen = in_fp16(model, part, probe, model_card, signature)
            ledger.append(exported_step("fp16", seen, compared_with(model), shares_of(model)))
        record = ArtifactRecord(
            artifact=path.name,
            digest=files.digest_of(part),
            card=model_card.name,
            interface=interface,
            size=str(size),
            batch=batch,
            precision="fp16" if fp16 else "fp32",
            opset=model.opset_import[0].version,
            normalisation=Normalisation(model_card.mean, signature.scale, model_card.std),
            resize=model_card.resize,
            classes=model_card.labels.names,
            source=ArtifactSource(
                checkpoint.source, model_card.licence, checkpoint.layout, checkpoint.digest
            ),
            cost=node_counts(model),
            ledger=tuple(ledger),
            versions={"torch": torch.__version__, "onnx": onnx.__version__},
            command=command,
            islands=tuple(fp32_nodes(model)) if fp16 else (),
        )
        beside.write_text(record.as_text(), encoding="utf-8")
    return Exported(path, record, seen)


export = export_onnx  # its name at the front door; the older one stays


def compared_with(model: ModelProto) -> str:
    plugins = plugins_of(model)
    stand_in = f", with {len(plugins)} TensorRT plugins computed by GridSample" if plugins else ""
    return f"{REFERENCE}{stand_in}"


def in_fp16(
    model: ModelProto, path: Path, probe: Probe, card: ModelCard, signature: Signature
) -> tuple[ModelProto, Agreement]:
    """`model` in FP16, written to `path`, and how well it agrees where every tensor is rounded, as on a GPU."""
    plugins = plugins_of(model)
    if plugins:
        raise RequestError(
            f"the graph has {len(plugins)} TensorRT plugins, whose FP16 cannot be proven without TensorRT; leave out"
            " --fp16, or write deformable attention another way: --msda gather. No file was written"
        )
    inputs = [probe.inputs(turn, signature) for turn in (0, 1)]
    half = to_fp16(model, card.keep_fp32, measure_ranges(model, inputs))
    next(item for item in half.metadata_props if item.key == PRECISION).value = "fp16"
    rounded = rounding(half)
    node = first_not_finite(rounded, inputs)
    if node is not None:
        raise ExportDisagrees(
            f"in FP16 the node {node!r} makes an infinity or a NaN of the probe images; name it under keep_fp32 in a"
            " card, or export without --fp16. No file was written"
        )
    save(half, path)
    demand(prove(half, path, probe, signature), card, "fp16")
    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder) / "rounded.onnx"
        save(rounded, stand_in)
        seen = prove(rounded, stand_in, probe, signature)
    demand(seen, card, "fp16")
    return half, seen


def trace(deployed: DeployedNetwork, card: ModelCard, signature: Signature) -> ModelProto:
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
        PRECISION: "fp32",
    }
    onnx.helper.set_model_props(model, facts)
    model.producer_name, model.producer_version = "segdeploy", __version__


def save(model: ModelProto, path: Path) -> None:
    needed = model.ByteSize()
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OutputError(
            f"{path.parent} has {free / 1e6:.1f} MB free and the graph needs {needed / 1e6:.1f} MB"
        )
    path.write_bytes(model.SerializeToString())
