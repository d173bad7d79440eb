"""Exports a checkpoint to ONNX, and compares the graph with its network; if they disagree, no file is left."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import onnx
from onnx import ModelProto

from segdeploy.errors import MissingExtra

try:
    import torch
except ImportError as error:
    raise MissingExtra(error.name or "torch", "export", "exporting") from error

from segdeploy import files, networks
from segdeploy.convert.fp16 import REMEDY, as_computed, in_fp16
from segdeploy.convert.tracing import traced_by_torch
from segdeploy.errors import OutputError, RequestError
from segdeploy.given import as_path, as_sizes
from segdeploy.graph.fp16 import fp32_nodes
from segdeploy.graph.open_sizes import fixed_at, joined_sizes, reopened
from segdeploy.graph.plugins import plugins_of
from segdeploy.graph.precision import PRECISION, shares_of, write_facts
from segdeploy.graph.tidy import LOWEST_OPSET, OPSETS, tidy
from segdeploy.graph.view import opset_of
from segdeploy.model.card import ModelCard, is_shipped
from segdeploy.model.record import ArtifactRecord, ArtifactSource, LedgerStep, Normalisation, record_path
from segdeploy.model.signature import INTERFACES, Signature
from segdeploy.model.training import training_steps
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.family import Checkpoint, DeployedNetwork
from segdeploy.networks.interface import WithInterface, card_of, signature_for
from segdeploy.prove.against_pytorch import References, compare_with_pytorch, make_references
from segdeploy.prove.agreement import Agreement, total
from segdeploy.prove.bounds import Bounds, bounds_of_graph, demand_agreement
from segdeploy.prove.ledger import compared_step, node_counts
from segdeploy.size import Size
from segdeploy.version import __version__

Progress = Callable[[str], None]
REFERENCE = "PyTorch FP32"
TO_BE_REPORTED = (
    "No file was written; report it with the checkpoint's name, or allow more in a card of your own"
)


@dataclass(frozen=True)
class Exported:
    path: Path
    record: ArtifactRecord
    agreement: Agreement
    window_stride: Size | None = (
        None  # between the windows of its published test, where it is not of whole images
    )

    def __str__(self) -> str:
        return f"{self.path}: {self.record.agreement_in_words}"


def export_onnx(
    source: str | Path,
    *,
    card: str | None = None,
    size: str | Size | Sequence[Size] | None = None,
    interface: str = "nvinfer",
    batch: int | None = 1,
    fp16: bool = False,
    opset: int = LOWEST_OPSET,
    revision: str | None = None,
    output: str | PathLike[str] = ".",
    command: str = "",
    progress: Progress = lambda step: None,
    **options: str | bool | None,
) -> Exported:
    """Export `source` into the folder or .onnx file `output`; `batch` None leaves the batch open.

    With several sizes, as in "512x1024,720x1280", it is one graph with open sides, compared at each of them.
    `options` are those of the checkpoint's family (`msda`, `any_task` of a Mask2Former); another family's are refused,
    unless they are None or False.
    """
    wanted, output = as_sizes(size, "size"), as_path(output, "output")
    if interface not in INTERFACES:
        raise RequestError(f"{interface!r} is not an interface; known: {', '.join(INTERFACES)}")
    if batch is not None and not 1 <= batch <= 1024:
        raise RequestError(f"a batch of {batch} was asked for; it is 1 to 1024, or dynamic")
    demand_known_opset(opset, fp16)
    progress("reading the checkpoint")
    asked = {name: value for name, value in options.items() if value is not None and value is not False}
    checkpoint = read_checkpoint(source, revision, asked)
    steps = training_steps(Path(checkpoint.source))
    model_card = card_of(checkpoint, card)
    pair = networks.build(checkpoint)
    sizes = wanted or (model_card.size,)
    signatures = [signature_for(model_card, interface, one, batch, pair.deployed.output) for one in sizes]
    stated = is_shipped(model_card) or card is not None
    said = {"size": stated or bool(wanted), "normalisation": stated}
    checkpoint = replace(
        checkpoint, assumed={fact: words for fact, words in checkpoint.assumed.items() if not said.get(fact)}
    )
    form = ("" if opset == LOWEST_OPSET else f".opset{opset}") + (".fp16" if fp16 else "")
    name = f"{model_card.name}.{'-'.join(map(str, sizes))}.{interface}{form}.onnx"
    path = output if output.suffix == ".onnx" else output / name
    files.make_folder(path.parent)
    files.landing(path)  # refuses a place that cannot hold a file, before the work
    progress("tracing the network")
    traced = []
    for place, one in enumerate(signatures):  # whose constants are of one size
        deployed = checkpoint.family.deploy(pair.plain) if place else pair.deployed
        deployed.fit(one.size, checkpoint.options)
        traced.append(trace(deployed, model_card, one, opset))
    model, signature = joined_sizes(traced, signatures)
    write_metadata(model, signature, checkpoint)
    with files.replacing_together(record_path(path), path) as [beside, part]:
        save(model, part)
        progress("comparing ONNX Runtime with PyTorch")
        references = [make_references(pair.plain, model_card, one) for one in signatures]
        bounds, what = bounds_of_graph("fp32", model_card), f"{path.name} disagrees with PyTorch"
        by_size = compare_each(model, part, references, bounds, what, TO_BE_REPORTED)
        seen = total(by_size.values())
        ledger = [compared_step("fp32", seen, compared_with(model), shares_of(traced[0]), by_size)]
        if fp16:
            progress("writing FP16, and comparing it with PyTorch")
            model, shares, by_size = prove_fp16(model, part, references, signature, model_card, path.name)
            seen = total(by_size.values())
            ledger.append(compared_step("fp16", seen, compared_with(model), shares, by_size))
        record = record_of_export(path.name, model, signature, model_card, checkpoint, ledger, steps)
        record = replace(record, digest=files.digest_of(part), command=command)
        beside.write_text(record.as_text(), encoding="utf-8")
    return Exported(path, record, seen, model_card.window_stride if sizes == (model_card.size,) else None)


def compare_each(
    model: ModelProto, path: Path, references: Sequence[References], bounds: Bounds, what: str, remedy: str
) -> dict[Size, Agreement]:
    """Compare a graph with PyTorch at each of its sizes; refuses one beyond the bounds at any of them."""
    seen = {one.signature.size: compare_with_pytorch(model, path, one) for one in references}
    for size, agreement in seen.items():
        where = f" at {size}" if len(seen) > 1 else ""
        demand_agreement(agreement, bounds, f"{what}{where}", remedy)
    return seen


def demand_known_opset(opset: int, fp16: bool) -> None:
    if opset not in OPSETS:
        raise RequestError(f"opset {opset} is not written here; known: {', '.join(map(str, OPSETS))}")
    if opset < LOWEST_OPSET and fp16:
        raise RequestError(
            f"at opset {opset} each LayerNorm is several nodes, whose squares overflow FP16; leave out --fp16"
        )


export = export_onnx  # the public name; the older one stays


def record_of_export(
    artifact: str, model: ModelProto, signature: Signature, card: ModelCard, checkpoint: Checkpoint,
    ledger: Sequence[LedgerStep], steps: tuple[LedgerStep, ...],
) -> ArtifactRecord:  # fmt: skip
    precision = ledger[-1].name
    return ArtifactRecord(
        artifact=artifact,
        digest="",  # the file is written after it is described
        card=card.name,
        interface=signature.interface,
        size=signature.size_in_words,
        batch=signature.batch,
        precision=precision,
        opset=opset_of(model),
        normalisation=Normalisation(card.mean, signature.scale, card.std),
        resize=card.resize,
        classes=card.labels.names,
        source=ArtifactSource(
            checkpoint.source,
            card.licence,
            checkpoint.layout,
            checkpoint.digest,
            tuple(checkpoint.assumed.values()),
            steps,
        ),
        cost=node_counts(model),
        ledger=tuple(ledger),
        versions={"torch": torch.__version__, "onnx": onnx.__version__},
        islands=tuple(fp32_nodes(model)) if precision == "fp16" else (),
    )


def compared_with(model: ModelProto) -> str:
    plugins = plugins_of(model)
    stand_in = f", with {len(plugins)} TensorRT plugins computed by GridSample" if plugins else ""
    return f"{REFERENCE}{stand_in}"


def prove_fp16(
    model: ModelProto,
    path: Path,
    references: Sequence[References],
    signature: Signature,
    card: ModelCard,
    name: str,
) -> tuple[ModelProto, dict[str, float], dict[Size, Agreement]]:
    """Write `model` in FP16 to `path`; it must agree as the CPU computes it and as a GPU does.

    Returns it, the shares of multiplications in each precision, and how well it agrees at each size as on a GPU.
    """
    plugins = plugins_of(model)
    if plugins:
        raise RequestError(
            f"the graph has {len(plugins)} TensorRT plugins, whose FP16 cannot be proven without TensorRT; leave out"
            " --fp16, or write deformable attention another way: --msda gather. No file was written"
        )
    bounds = bounds_of_graph("fp16", card)
    fixed = fixed_at(model, references[0].signature.input.shape) if signature.sizes else model
    half, rounded = in_fp16(fixed, card, [references[0].inputs(turn) for turn in (0, 1)], name)
    shares = shares_of(half)
    if signature.sizes:
        half = reopened(half, model)
    write_facts(half, signature, "fp16")
    save(half, path)
    compare_each(half, path, references, bounds, f"{name} disagrees with PyTorch", REMEDY)
    by_size: dict[Size, Agreement] = {}
    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder) / "rounded.onnx"
        for place, one in enumerate(references):
            if place:
                there = fixed_at(half, one.signature.input.shape)
                rounded = as_computed(there, [one.inputs(turn) for turn in (0, 1)], name)
            save(rounded, stand_in)
            where = f" at {one.signature.size}" if signature.sizes else ""
            what = f"{name} with FP16's rounding disagrees with PyTorch{where}"
            by_size |= compare_each(rounded, stand_in, [one], bounds, what, REMEDY)
    return half, shares, by_size


def trace(
    deployed: DeployedNetwork, card: ModelCard, signature: Signature, opset: int = LOWEST_OPSET
) -> ModelProto:
    deployed.scale_input(torch.tensor(card.std).reciprocal() / torch.tensor(signature.scale))
    whole = WithInterface(deployed, card, signature).eval()
    shape = tuple(side or 1 for side in (1, *signature.input.shape[1:]))
    example = torch.zeros(shape, dtype=torch.uint8 if signature.interface == "frames" else torch.float32)
    model = traced_by_torch(whole, example, signature.size)
    return tidy(model, signature.input.name, signature.output.name, signature.batch, opset)


def write_metadata(model: ModelProto, signature: Signature, checkpoint: Checkpoint) -> None:
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
