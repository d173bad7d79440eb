"""Writes FP16 into a graph and judges it as a GPU computes it, for export, build-engine and quantize alike.

`export --fp16` compares the result with PyTorch; `write_fp16`, without a checkpoint, compares it with the FP32 graph.
The CPU computes most FP16 nodes in FP32, so the judged graph has every rounding written out, as a GPU rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from segdeploy import files
from segdeploy.convert.other_sizes import judge_elsewhere
from segdeploy.errors import ExportDisagrees, GraphError
from segdeploy.graph.fp16 import rest_in_fp16, rounding, to_fp16
from segdeploy.graph.layers import tell_nodes_apart
from segdeploy.graph.load import Graph, as_graph, graph_in
from segdeploy.graph.open_sizes import reopened
from segdeploy.graph.precision import read_precision, shares_of, write_facts
from segdeploy.graph.tidy import set_batch
from segdeploy.graph.view import copy_of
from segdeploy.model.card import ModelCard, card_called
from segdeploy.model.record import ArtifactRecord, record_of_graph, record_path
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.bounds import bounds_of_graph, demand_agreement
from segdeploy.prove.judge import Judge, Probe, Verdict
from segdeploy.prove.ledger import record_from_graph, shares_by_size, step_of
from segdeploy.prove.material import images_in
from segdeploy.prove.probes import probe_frames
from segdeploy.prove.ranges import first_not_finite, measure_ranges
from segdeploy.size import Size

PROBES = 8
REMEDY = "Name what suffers under keep_fp32 in a card, or leave out --fp16. No file was written"


@dataclass(frozen=True)
class Fp16Graph:
    graph: Graph
    record: ArtifactRecord

    @property
    def path(self) -> Path:
        return self.graph.path


def in_fp16(
    model: ModelProto, card: ModelCard | None, inputs: Sequence[NDArray[Any]], name: str
) -> tuple[ModelProto, ModelProto]:
    """Write FP16 into the parts of `model` that are not INT8; returns it, and the same graph as a GPU computes it.

    Nodes that come near FP16's limit on `inputs`, and nodes that the card names, stay FP32.
    """
    write = rest_in_fp16 if read_precision(model).int8 else to_fp16
    written = write(model, card.keep_fp32 if card else (), measure_ranges(model, inputs))
    return written, as_computed(written, inputs, name)


def as_computed(written: ModelProto, inputs: Sequence[NDArray[Any]], name: str) -> ModelProto:
    """Write out FP16's rounding; refuses a graph in which it gives an infinity or a NaN for `inputs`."""
    rounded = rounding(written)
    node = first_not_finite(rounded, inputs)
    if node is not None:
        raise ExportDisagrees(
            f"in FP16 the node {node!r} of {name} gives an infinity or a NaN on the images that it is judged on."
            f" {REMEDY}"
        )
    return rounded


def write_fp16(
    source: str | Path | Graph,
    *,
    images: Path | None = None,
    card: ModelCard | None = None,
    output: Path,
    command: str = "",
    progress: Callable[[str], None] = lambda step: None,
) -> Fp16Graph:
    """Write `source` in FP16 into the folder `output`; judge it on `images`, or on made street scenes and noise."""
    progress("reading the graph")
    graph = as_graph(source, card)
    name, whole, graph = graph.name, graph, graph.at(None)
    signature = graph.signature
    if graph.precision.fp16:
        raise GraphError(f"{name} is FP16 already; leave out --fp16, or give the FP32 graph it came from")
    model = copy_of(graph.model)
    tell_nodes_apart(model)
    open_batch = signature.batch is None
    if open_batch:  # it is judged frame by frame, and its batch is opened again for the file
        del model.graph.value_info[:]
        set_batch(model, 1)
    frames = probe_frames(PROBES, signature.size, images_in(images) if images else ())
    judge = Judge(model, signature, [Probe(frame) for frame in frames])
    progress("writing FP16")
    card = card or card_called(signature.card)
    written, rounded = in_fp16(model, card, [batch for _, batch in judge.batches()], name)
    precision = str(read_precision(written))
    progress("comparing FP16 with FP32")
    verdict = judge.verdict(rounded)
    bounds = bounds_of_graph(precision, card)
    demand_agreement(verdict.agreement, bounds, f"{name} in FP16 disagrees with itself in FP32", REMEDY)
    if open_batch:
        del written.graph.value_info[:]
        set_batch(written, None)
    shares, by_size = shares_of(written), {signature.size: verdict.agreement}
    if whole.signature.sizes:
        written = reopened(written, whole.model)
        found = judge_elsewhere(whole, written, judge)
        by_size |= {size: there.agreement for size, (_, there) in found.items()}
        for size, seen in by_size.items():
            demand_agreement(seen, bounds, f"{name} in FP16 disagrees with itself in FP32 at {size}", REMEDY)
    write_facts(written, whole.signature, precision)
    target = output / f"{name.removesuffix('.onnx')}.fp16.onnx"
    parent = record_of_graph(whole.path, whole.digest)
    with files.replacing_together(record_path(target), target) as (beside, part):
        data = written.SerializeToString()
        part.write_bytes(data)
        made = graph_in(data, target)
        record = replace(fp16_record(parent, made, judge, verdict, shares, by_size), command=command)
        beside.write_text(record.as_text(), encoding="utf-8")
    return Fp16Graph(made, record)


def fp16_record(
    parent: ArtifactRecord | None,
    graph: Graph,
    judge: Judge,
    verdict: Verdict,
    shares: Mapping[str, float],
    by_size: Mapping[Size, Agreement],
) -> ArtifactRecord:
    facts = record_from_graph(parent, graph, str(graph.precision))
    this = step_of(facts.precision, judge.own, verdict, None, shares)
    compared_with = f"the {(parent.precision if parent else 'fp32').upper()} graph"
    changed = f"FP16 changes {100 * (1 - verdict.agreement.pixel_agreement):.3f} % of the labels"
    return replace(
        facts,
        ledger=(*facts.ledger, replace(this, compared_with=compared_with, by_size=shares_by_size(by_size))),
        verdict="; ".join(filter(None, [facts.verdict, changed])),
    )
