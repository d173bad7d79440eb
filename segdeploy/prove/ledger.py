"""Says how much accuracy each step costs: as numbers for the record, and as a sentence for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segdeploy.graph.fp16 import fp32_nodes
from segdeploy.graph.load import Graph
from segdeploy.model.labels import Labels
from segdeploy.model.record import ArtifactRecord, LedgerStep, WorstClass, first_record
from segdeploy.prove.bootstrap import drawn_weights, middle
from segdeploy.prove.confusion import iou_of, mean
from segdeploy.size import Size
from segdeploy.version import __version__

if TYPE_CHECKING:  # showing a ledger needs no runtime
    from onnx import ModelProto

    from segdeploy.prove.agreement import Agreement
    from segdeploy.prove.judge import Verdict

HALF = 0.5


def drop_of(own: Verdict, verdict: Verdict) -> float:
    """Give the lost points of mIoU where there is truth, else the per cent of changed labels."""
    if own.miou is None or verdict.miou is None:
        return 100 * (1 - verdict.agreement.pixel_agreement)
    return 100 * (own.miou - verdict.miou)


def drop_interval(own: Verdict, verdict: Verdict) -> tuple[float, float] | None:
    """The middle 95 % of what `drop_of` is over other images like these; None where one image says nothing of it.

    The same images are drawn for both, so that an easy draw moves neither.
    """
    if len(verdict.each) < 2 or len(own.each) != len(verdict.each):
        return None
    drawn = drawn_weights(len(verdict.each))
    if own.miou is None or verdict.miou is None:
        changed, pixels = np.array([(part.changed, part.pixels) for part in verdict.each]).T
        return middle(100 * (drawn @ changed) / (drawn @ pixels))
    return middle(100 * (mious(drawn, own) - mious(drawn, verdict)))


def mious(drawn: NDArray[np.float64], verdict: Verdict) -> NDArray[np.float64]:
    """Score each draw over the classes that its truth shows."""
    sums = np.array([part.sums for part in verdict.each if part.sums is not None])  # images × 3 × classes
    hits, there, predicted = np.moveaxis(np.tensordot(drawn, sums, 1), 1, 0)
    ious = iou_of(hits, there, predicted)
    return np.array([mean(row[seen]) for row, seen in zip(ious, there > 0, strict=True)])


def worst_class(own: Verdict, verdict: Verdict, labels: Labels | None) -> tuple[str, float] | None:
    if own.confusion is None or verdict.confusion is None or labels is None:
        return None
    deltas = 100 * (verdict.confusion.iou - own.confusion.iou)
    deltas[own.confusion.counts.sum(axis=1) == 0] = np.nan
    if not np.isfinite(deltas).any():
        return None
    place = int(np.nanargmin(deltas))
    return labels.names[place], float(deltas[place])


def int8_in_words(
    with_weights: float, of_all: float, own: Verdict, verdict: Verdict, labels: Labels | None, judged: str
) -> str:
    """Say what INT8 covers and costs; `with_weights` and `of_all` are the shares of multiplications in INT8."""
    words = f"INT8 covers {with_weights:.0%} of the multiplications with weights, {of_all:.0%} of all,"
    found = drop_interval(own, verdict)
    between = f" ({found[0]:.2f} to {found[1]:.2f} with other images)" if found else ""
    if own.miou is None:
        words += f" and changes {drop_of(own, verdict):.2f} % of the labels{between} {judged}"
    else:
        words += f" and costs {drop_of(own, verdict):.2f} mIoU{between} {judged}"
    worst = worst_class(own, verdict, labels)
    if worst is not None:
        words += f"; {worst[0]} {worst[1]:+.1f}"
    if with_weights < HALF:
        words += (
            "; that is less than half of the multiplications with weights: most of the network is not in INT8"
        )
    return words


def where_judged(probes: int, held_out: bool | None) -> str:
    """Say which images were judged; `held_out` None: it is not known which images the scales were calibrated on."""
    seen = {None: "", True: " that calibration did not see", False: " that calibration saw"}[held_out]
    return f"on {probes} image{'' if probes == 1 else 's'}{seen}"


def step_of(
    name: str, own: Verdict, verdict: Verdict, labels: Labels | None, macs: Mapping[str, float]
) -> LedgerStep:
    """Compare `verdict` with the FP32 graph's `own`; `macs` is the share of multiplications in each precision."""
    worst = worst_class(own, verdict, labels) if verdict is not own else None
    step = compared_step(name, verdict.agreement, "the FP32 graph", macs)
    between = drop_interval(own, verdict) if verdict is not own else None
    step = replace(step, kl=verdict.kl, worst_class=worst and WorstClass(*worst), drop_interval=between)
    return scored(step, verdict)


def compared_step(
    name: str,
    seen: Agreement,
    compared_with: str,
    macs: Mapping[str, float],
    by_size: Mapping[Size, Agreement] = {},
) -> LedgerStep:
    return LedgerStep(
        name,
        compared_with,
        seen.pixel_agreement,
        seen.pixels,
        seen.logits_error,
        seen.logits_rms,
        macs=dict(macs),
        by_size=shares_by_size(by_size),
    )


def shares_by_size(seen: Mapping[Size, Agreement]) -> dict[str, float]:
    """Give the share of equal pixels at each size; nothing where there is but one."""
    return {str(size): one.pixel_agreement for size, one in seen.items()} if len(seen) > 1 else {}


def first_step(own: Verdict, exported: LedgerStep | None, macs: Mapping[str, float]) -> LedgerStep:
    """Make the FP32 graph's step: its agreement is the export's, its scores are from the other steps' probes."""
    return scored(replace(exported or LedgerStep("fp32"), name="fp32", macs=dict(macs)), own)


def scored(step: LedgerStep, verdict: Verdict) -> LedgerStep:
    accuracy = None if verdict.confusion is None else verdict.confusion.pixel_accuracy
    return replace(step, miou=verdict.miou, pixel_accuracy=accuracy)


def node_counts(model: ModelProto) -> dict[str, int]:
    return {"nodes": len(model.graph.node), **Counter(node.op_type for node in model.graph.node)}


def record_from_graph(parent: ArtifactRecord | None, graph: Graph, precision: str) -> ArtifactRecord:
    """Make the record of `graph` from its `parent`'s; the caller adds its ledger step."""
    return replace(
        parent or first_record(graph.name, graph.digest, graph.signature, precision, graph.opset),
        artifact=graph.name,
        digest=graph.digest,
        precision=precision,
        opset=graph.opset,
        cost=node_counts(graph.model),
        islands=tuple(fp32_nodes(graph.model)) if "fp16" in precision else (),
        segdeploy=__version__,
    )
