"""Compares an engine with the graph it was built from, on the frames in its record, in every slot of its batches.

TensorRT has computed single batch slots wrongly without an error (NVIDIA/TensorRT#4853). So each slot is compared by
itself, on another frame than its neighbours', at the smallest, the optimal and the largest batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segdeploy import files
from segdeploy.errors import EngineDisagrees, OutputError
from segdeploy.flavour import TENSORRT, Flavour, Version
from segdeploy.graph.known_bad import WRONG_BATCHES, bug_of_sampling
from segdeploy.model.card import card_called
from segdeploy.model.engine import GRIDSAMPLE, EngineProof, Verified
from segdeploy.model.record import ArtifactRecord, LedgerStep
from segdeploy.model.signature import Signature
from segdeploy.picture.image import LabelMap
from segdeploy.prove import agreement, golden
from segdeploy.prove.agreement import Agreement, compare_labels
from segdeploy.prove.bounds import bounds_of_engine, demand_agreement
from segdeploy.run import cuda
from segdeploy.run.io import to_input
from segdeploy.run.session import Session
from segdeploy.run.tensorrt.compatibility import read_engine_record, rebuild, target_of
from segdeploy.run.tensorrt.engine import invalid_here
from segdeploy.run.tensorrt.session import TensorrtSession

# Faults of this machine, not of the build: an engine for other machines is not wrong because this one cannot run it.
OF_THIS_MACHINE = (
    "UNSUPPORTED_CC", "OLD_CUDA_DRIVER", "OLD_CUDA_RUNTIME", "INSUFFICIENT_GPU_MEMORY", "CUDA_ERROR",
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    batch: int
    slot: int
    agreement: Agreement
    where: str = ""  # the size in words, where there are several


def why_not(flavour: Flavour, engine: Path | None = None, targets: Sequence[str] = ()) -> str | None:
    """Say why an engine of this flavour cannot run here; None where it can.

    TensorRT-RTX builds for other GPUs than the one here: so `targets` are checked, and it is asked about `engine`.
    """
    reason = cuda.why_no_gpu()
    if reason is not None or engine is None:
        return reason
    device = cuda.open_device()
    here = target_of(device.compute_capability)
    if targets and here not in targets:
        return f"this {device.name} is {here}, which is not one of its targets: {', '.join(targets)}"
    invalid = [name for name in invalid_here(flavour, engine.read_bytes()) if name in OF_THIS_MACHINE]
    if not invalid:
        return None
    return (
        f"{flavour} cannot run it on {device.name} (compute capability {device.compute_capability}):"
        f" {', '.join(invalid)}"
    )


def prove(path: Path, record: ArtifactRecord) -> EngineProof:
    """Compare the engine's labels with those in its record; an engine below the bound raises."""
    with TensorrtSession(path, record=record) as session:
        profile = record.engine_facts.profile
        batches = sorted({profile.min, profile.opt, profile.max})
        seen: list[Seen] = []
        count = 0
        for signature in session.signature.each:
            frames, labels = golden.read_golden(record.engine_facts.golden, signature.size)
            count += len(frames)
            for batch in batches:
                seen += compare_slots(session, signature, batch, frames, labels)
    demand_slots(seen, record)
    return EngineProof(
        compared_with="ONNX Runtime",
        pixel_agreement=agreement.total(one.agreement for one in seen).pixel_agreement,
        worst_slot=min(one.agreement.pixel_agreement for one in seen),
        batches=tuple(batches),
        frames=count,
        device=cuda.open_device().name,
    )


def verify(path: Path, tell: Callable[[EngineProof], None] = lambda proof: None) -> ArtifactRecord:
    """Prove an engine that was built where it could not run, and write the result into its record.

    `tell` gets the result first, so that it is not lost where the folder cannot be written.
    """
    read_engine_record(path)  # raises before a lock is made beside a missing file
    can_be_written = os.access(path.parent, os.W_OK | os.X_OK)
    with files.locked(path) if can_be_written else nullcontext():
        record = read_engine_record(path)
        try:
            proof = prove(path, record)
        except EngineDisagrees as error:
            raise EngineDisagrees(f"{error}. {marked(path, record, str(error))}") from error
        tell(proof)
        return write_verified(path, with_proof(record, proof))


def marked(path: Path, record: ArtifactRecord, why: str) -> str:
    """Note in the record that the engine is wrong; returns what that means for the user, and the remedy."""
    wrong = replace(record.engine_facts, verified=Verified(why=why, disagrees=True))
    try:
        write_verified(path, replace(record, engine=wrong))
    except OutputError as error:
        return f"Do not run it; its record could not be marked ({error}). Rebuild it: {rebuild(record)}"
    return f"Its record is marked, and segdeploy will not run it. Rebuild it: {rebuild(record)}"


def write_verified(path: Path, record: ArtifactRecord) -> ArtifactRecord:
    known = replace(record, artifact=path.name)
    known.write(path.parent)
    return known


def with_proof(record: ArtifactRecord, proof: EngineProof) -> ArtifactRecord:
    """Return the record with the proof; the ledger gets one step for it, however often the engine is proven."""
    step = LedgerStep("engine", f"the graph in {proof.compared_with}", proof.pixel_agreement)
    before = (one for one in record.ledger if one.name != "engine")
    proven = replace(record.engine_facts, verified=Verified(proof))
    return replace(record, engine=proven, ledger=(*before, step))


def compare_slots(
    session: Session, signature: Signature, batch: int, frames: NDArray[np.uint8], labels: LabelMap
) -> Iterator[Seen]:
    """Compare each slot of a batch on each of the frames of one size, one after the other."""
    orders = orders_of(len(frames))
    turns: list[list[Agreement]] = [[] for _ in range(batch)]
    for turn in range(len(frames)):
        places = [orders[slot % len(orders)][turn] for slot in range(batch)]
        answers = golden.labels_from_output(signature, session.run(to_input(signature, frames[places])))
        for slot, place in enumerate(places):
            turns[slot].append(compare_labels(labels[place][None], answers[slot][None]))
    for slot, each in enumerate(turns):
        yield Seen(
            batch, slot, agreement.total(each), f" at {signature.size}" if session.signature.sizes else ""
        )


def orders_of(count: int) -> list[list[int]]:
    """List the orders in which slots get the frames, so that neighbours differ: rotations, forwards and backwards."""
    around = [[(start + turn) % count for turn in range(count)] for start in range(count)]
    return around + [order[::-1] for order in around]


def demand_slots(seen: list[Seen], record: ArtifactRecord) -> None:
    """Refuse an engine with a slot that differs more than the bounds allow."""
    bounds = bounds_of_engine(record.precision, card_called(record.card))
    below = [one for one in seen if not bounds.allow(one.agreement)]
    if not below:
        return
    worst = min(below, key=lambda one: one.agreement.pixel_agreement)
    what = (
        f"{record.artifact} disagrees with {record.engine_facts.graph.name} in slot {worst.slot} of batch"
        f" {worst.batch}{worst.where} ({len(below)} of {len(seen)} slots are wrong)"
    )
    demand_agreement(worst.agreement, bounds, what, remedy_for(below, seen, record), EngineDisagrees)


def remedy_for(below: list[Seen], seen: list[Seen], record: ArtifactRecord) -> str:
    """Name the known bug that fits, if any, and say what to do."""
    facts = record.engine_facts
    name, version = facts.flavour, Version.parse(facts.version)
    alone = [one for one in seen if one.batch == 1]
    known = bug_of_sampling(version, gridsamples_in(record), record.opset)
    if known is not None and name == TENSORRT:
        report, remedy = known
        if facts.options.msda == GRIDSAMPLE:
            remedy = "build it without --msda gridsample"
        return f"This fits {report}: {remedy}"
    if alone and not any(one.batch == 1 for one in below):
        bug = "It is right at batch 1"
        if name == TENSORRT and version in WRONG_BATCHES:
            bug = f"This fits NVIDIA/TensorRT#4853 (SegFormer with a batch above 1, {WRONG_BATCHES})"
        return f"{bug}: build it with --batch 1"
    if not alone:
        way = (
            "export the graph with --batch 1 and build that"
            if has_own_batch(record)
            else "build it with --batch 1"
        )
        return f"Batch 1 was not seen: {way}; if that is wrong too, build it in FP32"
    return (
        "No known bug fits: build it in FP32, or with --optimization-level 0, to see which step is wrong, and report"
        f" it with its record ({name} {version})"
    )


def gridsamples_in(record: ArtifactRecord) -> int:
    """Count the GridSample nodes that were built as they are."""
    built = record.engine_facts.sampling
    if built is None:  # there is none, or an earlier version built it
        return record.cost.get("GridSample", 0)
    return built.nodes if built.form == GRIDSAMPLE else 0


def has_own_batch(record: ArtifactRecord) -> bool:
    """Tell whether the graph itself fixes the batch, and not only the profile."""
    return all(binding.shape[:1] != (None,) for binding in record.engine_facts.bindings)
