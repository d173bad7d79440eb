"""Judges a graph of several sizes, written in fewer bits at the first of them, at the others too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.graph.fp16 import rounding
from segdeploy.graph.load import Graph
from segdeploy.graph.open_sizes import fixed_at
from segdeploy.graph.precision import read_precision
from segdeploy.graph.tidy import set_batch
from segdeploy.graph.view import copy_of
from segdeploy.prove.judge import Judge, Verdict
from segdeploy.size import Size

if TYPE_CHECKING:
    from onnx import ModelProto


def judge_elsewhere(source: Graph, written: ModelProto, first: Judge) -> dict[Size, tuple[Verdict, Verdict]]:
    """Compare `written` with `source` at each size but that of the `first` judge, on its probes.

    Gives for each size what the two are there, the second as a GPU computes it.
    """
    seen = {}
    for size in (one for one in source.signature.sizes if one != first.signature.size):
        there = source.at(size)
        judge = Judge(
            single(there.model, there),
            there.signature,
            first.probes,
            classes=first.classes,
            translate=first.translate,
        )
        changed = single(fixed_at(written, there.signature.input.shape), there)
        verdict = judge.verdict(rounding(changed) if read_precision(changed).fp16 else changed)
        seen[size] = judge.own, verdict
    return seen


def single(model: ModelProto, graph: Graph) -> ModelProto:
    """Copy a graph for one image at a time, where its batch is open."""
    made = copy_of(model)
    if graph.signature.batch is None:
        del made.graph.value_info[:]
        set_batch(made, 1)
    return made
