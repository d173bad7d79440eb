"""Turns any ONNX graph of a segmentation network into one of ours, or leaves no file where the two disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp
from os import PathLike
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from segdeploy import files
from segdeploy.convert.adopt.chain import without_names
from segdeploy.convert.adopt.described import (
    AdoptRequest,
    card_for,
    choose_normalisation,
    image_of,
    name_classes,
    output_of,
    with_own_facts,
)
from segdeploy.convert.adopt.ending import (
    Ending,
    demand_room_for_classes,
    find_ending,
    height_and_width,
    put_answer,
)
from segdeploy.convert.adopt.fixed import fixed
from segdeploy.convert.adopt.own_input import own_normalisation, put_input, scale_for
from segdeploy.errors import GraphError, RequestError
from segdeploy.given import as_optional_path, as_path, as_sizes
from segdeploy.graph.load import read_whole
from segdeploy.graph.open_sizes import has_several, joined_sizes
from segdeploy.graph.precision import read_precision, shares_of, write_facts
from segdeploy.graph.tidy import open_batch, resize_by_scales, set_batch
from segdeploy.graph.view import View, copy_of, opset_of
from segdeploy.model.card import ModelCard, Triple, read_card
from segdeploy.model.names import name_for
from segdeploy.model.record import ArtifactRecord, ArtifactSource, LedgerStep, Normalisation, record_path
from segdeploy.model.signature import INTERFACES, PREFIX, Signature, TensorFacts, signature_of
from segdeploy.prove.against_graph import Original, compare_with_original
from segdeploy.prove.agreement import Agreement, total
from segdeploy.prove.bounds import bounds_of_graph, demand_agreement
from segdeploy.prove.ledger import compared_step, node_counts
from segdeploy.size import Size
from segdeploy.version import __version__

Progress = Callable[[str], None]
MOST_BATCH = 1024
REFERENCE = "the original graph"
REMEDY = (
    "No file was written. Where its classes tie by nature, allow more in a card of your own (--card); otherwise"
    " report it with the program that exported the graph"
)


@dataclass(frozen=True)
class Adopted:
    path: Path
    record: ArtifactRecord
    agreement: Agreement
    assumed: tuple[str, ...]  # sentences: what neither the file nor the user said

    def __str__(self) -> str:
        return f"{self.path}: {self.record.agreement_in_words}"


def adopt(
    source: str | PathLike[str],
    *,
    card: str | None = None,
    classes: str | PathLike[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: str | Size | Sequence[Size] | None = None,
    answer: str | None = None,
    threshold: float | None = None,
    interface: str = "nvinfer",
    batch: int | None = 1,
    output: str | PathLike[str] = ".",
    command: str = "",
    progress: Progress = lambda step: None,
) -> Adopted:
    """Adopt the .onnx file `source` and write it to the folder or .onnx file `output`.

    Facts that the file does not hold come from `card`, or from `classes`, `mean`, `std` and `size`. The rest is
    assumed, and `assumed` of the result lists it. With `batch` None the batch stays open, and with several sizes the
    sides do.
    """
    request = AdoptRequest(
        card, as_optional_path(classes, "classes"), mean, std, as_sizes(size, "size"), answer, threshold,
        interface, batch,
    )  # fmt: skip
    return adopt_graph(as_path(source, "source"), request, as_path(output, "output"), command, progress)


def adopt_graph(path: Path, request: AdoptRequest, output: Path, command: str, progress: Progress) -> Adopted:
    demand_request(request)
    progress("reading the graph")
    whole, digest = read_whole(path)
    demand_foreign(whole, path.name)
    request = with_own_facts(request, {item.key: item.value for item in whole.metadata_props})
    original = only_output(whole, output_of(View(whole), path.name, request.answer))
    origin = AdoptedFrom(path.name, name_for(path.stem), digest, path=path)
    return put_interface_on(original, origin, request, output, command, progress)


@dataclass(frozen=True)
class AdoptedFrom:
    """Says where a graph comes from, and what it is compared with."""

    name: str  # of the file, as it is shown
    card: str  # the name of the card that is made of it
    digest: str
    kind: str = "onnx"
    words: str = REFERENCE
    path: Path | None = None  # of a graph: no file is written over it
    network: Callable[[NDArray[Any]], NDArray[Any]] | None = (
        None  # computes the original, in the traced graph's place
    )
    versions: Mapping[str, str] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()


def put_interface_on(
    original: ModelProto,
    origin: AdoptedFrom,
    request: AdoptRequest,
    output: Path,
    command: str,
    progress: Progress,
) -> Adopted:
    """Give a graph of one output an interface, and compare it with the original; both files or none are written."""
    card = read_card(request.card) if request.card else None
    each = []
    for asked in request.sizes or (None,):
        given, size = image_of(View(original), origin.name, asked, card)
        progress(f"fixing it at {size}")
        each.append(adopted_at(size, given, original, origin, request, card))
    first, described = each[0], each[0].card
    made, signature = joined_sizes([one.model for one in each], [one.signature for one in each])
    write_facts(made, signature, "fp32")
    sizes = "-".join(str(one.signature.size) for one in each)
    target = (
        output if output.suffix == ".onnx" else output / f"{described.name}.{sizes}.{request.interface}.onnx"
    )
    if origin.path and target.exists() and target.resolve() == origin.path.resolve():
        raise RequestError(f"{target} is the graph itself; name another file or folder: -o")
    files.make_folder(target.parent)
    notes = (*origin.assumed, *first.assumed)
    source = ArtifactSource(origin.name, described.licence, origin.kind, origin.digest, notes)
    with files.replacing_together(record_path(target), target) as [beside, part]:
        part.write_bytes(made.SerializeToString())
        progress("comparing it with the original")
        what = f"{target.name} disagrees with {origin.name}"
        by_size = {one.signature.size: demand_agreeing(one, made, part, what) for one in each}
        seen = total(by_size.values())
        step = compared_step("fp32", seen, origin.words, shares_of(first.model), by_size)
        record = record_adopted(target.name, made, signature, described, source, step)
        versions = {**record.versions, **origin.versions}
        record = replace(record, digest=files.digest_of(part), command=command, versions=versions)
        beside.write_text(record.as_text(), encoding="utf-8")
    return Adopted(target, record, seen, notes)


@dataclass(frozen=True)
class AdoptedAt:
    """Holds a graph with its interface at one size, and the original that it is compared with there."""

    model: ModelProto
    signature: Signature
    logits: str  # the name of their tensor, or ""
    card: ModelCard
    reference: Original
    assumed: tuple[str, ...]


def adopted_at(
    size: Size,
    given: TensorFacts,
    original: ModelProto,
    origin: AdoptedFrom,
    request: AdoptRequest,
    card: ModelCard | None,
) -> AdoptedAt:
    model = fixed(original, origin.name, [side or 1 for side in given.shape])
    found = find_ending(model, size, request.threshold)
    view = View(model)
    mean, std, assumed = choose_normalisation(
        given,
        view.answers[0],
        origin.name,
        request,
        card,
        own_normalisation(view, given.name),
    )
    labels, numbered = name_classes(found.classes, origin.name, request, card)
    demand_room_for_classes(view, len(labels.names))
    described = card or card_for(origin.name, origin.card, size, mean, std, labels)
    described = replace(described, mean=mean, std=std, size=size)
    signature = promised_signature(described, request, model, found)
    made, logits = rewritten(model, found, signature, std)
    reference = original_of(original, found, fed_with(signature, given, std), origin)
    notes = tuple(filter(None, (assumed, numbered, *others_assumed(found, request))))
    return AdoptedAt(made, signature, logits, described, reference, notes)


def demand_agreeing(one: AdoptedAt, model: ModelProto, path: Path, what: str) -> Agreement:
    """Compare `model`, as written to `path`, with the original at one size; refuses it beyond the card's bounds."""
    seen = compare_with_original(model, path, one.signature, one.logits, one.reference)
    bounds = bounds_of_graph("fp32", one.card)
    if seen.logits_error is None:
        bounds = replace(bounds, logits_error=None)
    demand_agreement(seen, bounds, f"{what} at {one.signature.size}" if has_several(model) else what, REMEDY)
    return seen


def fed_with(signature: Signature, given: TensorFacts, std: Triple) -> Signature:
    """Describe the original's input, whose channels may have three scales."""
    red, green, blue = std
    scale = 1 / red, 1 / green, 1 / blue
    return replace(
        signature, interface="logits", input=given, batch=given.shape[0], scale=scale, foreign=True
    )


def demand_request(request: AdoptRequest) -> None:
    if request.interface not in INTERFACES:
        raise RequestError(f"{request.interface!r} is not an interface; known: {', '.join(INTERFACES)}")
    if request.batch is not None and not 1 <= request.batch <= MOST_BATCH:
        raise RequestError(f"a batch of {request.batch} was asked for; it is 1 to {MOST_BATCH}, or dynamic")
    if request.card and (request.mean or request.std or request.classes):
        raise RequestError(
            "a card says mean, std and classes; leave --mean, --std and --classes out, or the card"
        )


def demand_foreign(model: ModelProto, name: str) -> None:
    if any(item.key == f"{PREFIX}interface" for item in model.metadata_props):
        raise GraphError(
            f"{name} is a graph of segdeploy already; go on with: segdeploy run, quantize or build-engine"
        )
    halves = any(item.data_type == TensorProto.FLOAT16 for item in model.graph.initializer)
    if halves or read_precision(model).int8:
        raise GraphError(
            f"{name} has {'FP16' if halves else 'INT8'} inside already; adopt the FP32 graph that it was made from, and"
            " let segdeploy write the types: quantize, or build-engine --fp16"
        )


def only_output(model: ModelProto, name: str) -> ModelProto:
    made = copy_of(model)
    kept = [value for value in made.graph.output if value.name == name]
    del made.graph.output[:]
    made.graph.output.extend(kept)
    return made


def promised_signature(card: ModelCard, request: AdoptRequest, model: ModelProto, found: Ending) -> Signature:
    if request.interface == "logits" and found.is_labels:
        raise RequestError(
            "no logits were found under the graph's labels; take another interface: nvinfer or frames"
        )
    return signature_of(
        card, request.interface, card.size, request.batch, height_and_width(View(model), found.tensor, found.last),
        align_corners=found.align_corners, scale=scale_for(card.std),
    )  # fmt: skip


def rewritten(
    model: ModelProto, found: Ending, signature: Signature, std: Sequence[float]
) -> tuple[ModelProto, str]:
    """Give a fixed graph the interface's input and output; returns it and the name of its logits tensor, or ""."""
    taken = (signature.input.name, signature.output.name)
    made = without_names(model, taken)
    if found.tensor in taken:
        found = replace(found, tensor=f"{found.tensor}.theirs")
    logits = put_answer(made, found, signature)
    put_input(made, signature, [1 / (one * signature.scale[0]) for one in std])
    if signature.batch != 1:
        open_batch_of(made)
    set_batch(made, signature.batch)
    onnx.helper.set_model_props(made, signature.metadata() | {f"{PREFIX}version": __version__})
    made.producer_name, made.producer_version, made.graph.name = "segdeploy", __version__, "segdeploy"
    onnx.checker.check_model(made, full_check=True)
    return made, logits


def open_batch_of(model: ModelProto) -> None:
    """Open the batch of a graph that was fixed at one image, where its nodes take any number of images."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    resize_by_scales(model)
    open_batch(model)


def original_of(model: ModelProto, found: Ending, fed: Signature, origin: AdoptedFrom) -> Original:
    view = View(model)
    inner = found.tensor if not found.is_labels and found.tensor in view.makers else None
    output = model.graph.output[0].name
    cut = found.threshold
    cut_of_output = cut
    if cut is not None and "Sigmoid" in found.stripped:
        cut_of_output = 1 / (1 + exp(-cut))
    return Original(
        model, fed, output, inner, found.last, found.output_last, found.align_corners, cut, cut_of_output,
        origin.network,
    )  # fmt: skip


def record_adopted(
    artifact: str,
    model: ModelProto,
    signature: Signature,
    card: ModelCard,
    source: ArtifactSource,
    step: LedgerStep,
) -> ArtifactRecord:
    return ArtifactRecord(
        artifact=artifact,
        digest="",  # the file is written after it is described
        card=card.name,
        interface=signature.interface,
        size=signature.size_in_words,
        batch=signature.batch,
        precision="fp32",
        opset=opset_of(model),
        normalisation=Normalisation(card.mean, signature.scale, card.std),
        resize=card.resize,
        classes=card.labels.names,
        source=source,
        cost=node_counts(model),
        ledger=(step,),
        versions={"onnx": onnx.__version__},
    )


def others_assumed(found: Ending, request: AdoptRequest) -> list[str]:
    if found.classes == 1 and request.threshold is None and not found.is_share:
        return [f"its one channel is the second class above {found.threshold:g} (--threshold)"]
    return []
