"""An FP32 graph to FP16 without its checkpoint: judged against the graph it came from, and refused where it differs.

`segdeploy export --fp16` compares with PyTorch; here the FP32 graph is what there is. The CPU computes most FP16 nodes
in FP32, so what is judged is a graph in which every rounding is spelled out, as a GPU rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segdeploy import files, scenes
from segdeploy.errors import ExportDisagrees, GraphError
from segdeploy.graph.fp16 import rest_in_fp16, rounding, to_fp16
from segdeploy.graph.layers import name_nodes
from segdeploy.graph.load import Graph, as_graph, graph_in
from segdeploy.graph.precision import read_precision, shares_of, write_facts
from segdeploy.graph.tidy import set_batch
from segdeploy.graph.view import copy_of
from segdeploy.model.card import ModelCard, known_cards, read_card
from segdeploy.model.record import ArtifactRecord, record_of_graph, record_path
from segdeploy.model.signature import Signature
from segdeploy.picture.image import Frame, read_frame
from segdeploy.prove.agreement import MAX_LOGITS_RMS_FP16
from segdeploy.prove.judge import Judge, Probe, Verdict
from segdeploy.prove.ledger import record_from_graph, step_of
from segdeploy.prove.material import images_in, spread
from segdeploy.prove.ranges import first_not_finite, measure_ranges

PROBES = 8


@dataclass(frozen=True)
class Halved:
    graph: Graph
    record: ArtifactRecord

    @property
    def path(self) -> Path:
        return self.graph.path


def write_half(
    source: str | Path | Graph,
    *,
    images: Path | None = None,
    card: ModelCard | None = None,
    output: Path,
    command: str = "",
    progress: Callable[[str], None] = lambda step: None,
) -> Halved:
    """`source` in FP16, in the folder `output`; judged on `images`, or on made street scenes and noise."""
    progress("reading the graph")
    graph = as_graph(source, card)
    path, signature, before = graph.path, graph.signature, graph.precision
    if before.fp16:
        raise GraphError(
            f"{path.name} is FP16 already; leave out --fp16, or give the FP32 graph it came from"
        )
    model = copy_of(graph.model)
    name_nodes(model)
    open_batch = signature.batch is None
    if open_batch:  # judged frame by frame; the file's batch is opened again
        del model.graph.value_info[:]
        set_batch(model, 1)
    judge = Judge(model, signature, [Probe(frame) for frame in probes_for(signature, images)])
    inputs = [batch for _, batch in judge.batches()]
    progress("writing FP16")
    bounds = card or (read_card(signature.card) if signature.card in known_cards() else None)
    write = rest_in_fp16 if before.int8 else to_fp16
    half = write(model, bounds.keep_fp32 if bounds else (), measure_ranges(model, inputs))
    rounded = rounding(half)
    node = first_not_finite(rounded, inputs)
    if node is not None:
        raise ExportDisagrees(
            f"in FP16 the node {node!r} of {path.name} makes an infinity or a NaN of the probe images; name it under"
            " keep_fp32 in a card, or leave out --fp16. No file was written"
        )
    progress("comparing FP16 with FP32")
    verdict = judge.verdict(rounded)
    demand(verdict, path.name, bounds, int8=before.int8)
    if open_batch:
        del half.graph.value_info[:]
        set_batch(half, None)
    write_facts(half, signature, str(read_precision(half)))
    target = output / f"{path.name.removesuffix('.onnx')}.fp16.onnx"
    parent = record_of_graph(path, graph.digest)
    with files.replacing_together(record_path(target), target) as (beside, part):
        data = half.SerializeToString()
        part.write_bytes(data)
        written = graph_in(data, target)
        record = replace(record_of(parent, written, judge, verdict), command=command)
        beside.write_text(record.as_text(), encoding="utf-8")
    return Halved(written, record)


def probes_for(signature: Signature, images: Path | None) -> list[Frame]:
    if images is not None:
        found = images_in(images)
        return [read_frame(found[place]) for place in spread(len(found), PROBES)]
    height, width = signature.size.height, signature.size.width
    made = [scenes.make_scene(seed, height, width).image for seed in range(PROBES - 1)]
    return [*made, np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)]


def demand(verdict: Verdict, name: str, card: ModelCard | None, *, int8: bool) -> None:
    """The card's bounds; rounding moves values over the edges of INT8's steps, so there only the labels count."""
    pixels = (card or ModelCard).min_pixel_agreement_fp16
    if verdict.pixel_agreement >= pixels and (int8 or verdict.logits_rms <= MAX_LOGITS_RMS_FP16):
        return
    raise ExportDisagrees(
        f"{name} in FP16 disagrees with itself in FP32: {verdict.pixel_agreement:.4%} of the pixels are equal and the"
        f" logits' error is {verdict.logits_rms:.1e} of the range (root mean square); allowed are {pixels:.2%} and"
        f" {MAX_LOGITS_RMS_FP16:.0e}"
        ". Name what suffers under keep_fp32 in a card, or leave out --fp16. No file was written"
    )


def record_of(parent: ArtifactRecord | None, graph: Graph, judge: Judge, verdict: Verdict) -> ArtifactRecord:
    facts = record_from_graph(parent, graph, str(graph.precision))
    pixels = sum(probe.frame.shape[0] * probe.frame.shape[1] for probe in judge.probes)
    this = step_of(facts.precision, judge.own, verdict, None, shares_of(graph.model), pixels)
    compared_with = f"the {(parent.precision if parent else 'fp32').upper()} graph"
    return replace(
        facts,
        ledger=(*facts.ledger, replace(this, compared_with=compared_with)),
        verdict="; ".join(filter(None, [facts.verdict, changed(verdict)])),
    )


def changed(verdict: Verdict) -> str:
    return f"FP16 changes {100 * (1 - verdict.pixel_agreement):.3f} % of the labels"
