"""Holds what a quantisation was asked for, what it is judged on, and the scales that it found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from onnx import ModelProto

from segdeploy.convert.int8.collect import CalibrationKey
from segdeploy.convert.int8.histogram import Histogram
from segdeploy.convert.int8.options import AUTO
from segdeploy.convert.int8.recipe import Recipe
from segdeploy.convert.int8.search import groups_of, names_in
from segdeploy.convert.int8.thresholds import int8_scales, thresholds
from segdeploy.datasets.dataset import Dataset
from segdeploy.graph.fp16 import rest_in_fp16, rounding
from segdeploy.graph.int8 import quantised
from segdeploy.graph.layers import Layer, pixel_tensors
from segdeploy.graph.load import Graph
from segdeploy.model.card import ModelCard
from segdeploy.model.signature import Signature
from segdeploy.prove.judge import Judge, Verdict
from segdeploy.prove.ledger import drop_of
from segdeploy.prove.material import Material
from segdeploy.size import Size

Progress = Callable[[str], None]
PROBES = 48
MAX_DROP, MAX_DISAGREEMENT = 0.25, 3.0  # points of mIoU with truth; per cent of the labels without
ACCURACY_SHARE = 0.6  # points of pixel accuracy that may be lost for each of mIoU
FEW = 8  # of the probes: thresholds are chosen and groups are ranked on them


@dataclass(frozen=True)
class Request:
    """A request to `quantize`; its images are a folder or a labelled data set."""

    images: Path | None = None
    dataset: Dataset | None = None
    count: int | None = None  # None: all but those kept to judge on, up to 500
    probes: int = PROBES
    aside: int | None = None  # images kept from the draw, as a recipe says
    max_drop: float | None = None
    equalise: str = "auto"
    recipe: Recipe | None = None  # replayed: what it says is not searched for
    scales: Path | None = None  # TensorRT's calibration cache, instead of a calibration
    method: str = AUTO
    percentile: float = 99.99
    seed: int = 0
    fp16: bool = False  # what stays out of INT8 is FP16
    card: ModelCard | None = None  # describes a graph from elsewhere
    size: Size | None = None  # of several, the one that is calibrated; None: the first
    cache_for: str | None = None  # a TensorRT version: its calibration cache is written too
    sensitivity: bool = False  # measure each group even where all of INT8 costs no more than it may
    processes: int | None = None  # that count images; None: this one alone, or as many as fit on a cluster
    ray: str | None = None  # a cluster's address, or `local`

    @property
    def is_spread_out(self) -> bool:
        """Tell whether other processes count images."""
        return self.ray is not None or (self.processes or 1) > 1


@dataclass(frozen=True)
class Job:
    """One run: the graph, the request, and what both are judged on."""

    whole: Graph  # as it was given
    source: Graph  # the same at one size, where it has several
    model: ModelProto  # the source as it is calibrated: one image at a time where its batch is open
    request: Request
    material: Material
    judge: Judge
    key: CalibrationKey
    output: Path
    command: str
    progress: Progress

    @property
    def signature(self) -> Signature:
        return self.source.signature

    @property
    def stem(self) -> str:
        return self.source.name.removesuffix(".onnx")

    @property
    def method(self) -> str:
        """Name the way in which the scales were found: a method of ours, or somebody's cache."""
        return self.request.scales.name if self.request.scales else self.request.method

    @cached_property
    def few(self) -> Judge:
        """Judges on some of the probes, evenly spread."""
        return self.judge.on(self.places)

    @property
    def places(self) -> range:
        """Give the places of the few probes among all."""
        places = range(len(self.material.probes))
        return places[:: max(len(places) // FEW, 1)][:FEW]

    def on_few(self, verdict: Verdict) -> list[int]:
        """Give the changes on the few probes, of a verdict on all."""
        return [verdict.each[place].changed for place in self.places]

    @property
    def limit(self) -> float:
        if self.request.max_drop is not None:
            return self.request.max_drop
        return MAX_DROP if self.material.labels else MAX_DISAGREEMENT

    def drop(self, verdict: Verdict) -> float:
        return drop_of(self.judge.own, verdict)

    def spent(self, verdict: Verdict) -> float:
        """Give the share of the allowed loss that is lost: in mIoU or pixel accuracy, what is nearer to its limit."""
        spent = self.drop(verdict) / max(self.limit, 1e-9)
        if verdict.confusion is None or self.judge.own.confusion is None:
            return spent
        lost = 100 * (self.judge.own.confusion.pixel_accuracy - verdict.confusion.pixel_accuracy)
        return max(spent, lost / max(ACCURACY_SHARE * self.limit, 1e-9))


@dataclass(frozen=True)
class Calibrated:
    """A graph and the scales of the tensors that its layers read; what it costs with some groups kept out of INT8."""

    model: ModelProto
    every: list[Layer]
    histograms: dict[str, Histogram]
    scales: dict[str, float]
    keep_fp32: tuple[str, ...] = ()  # patterns of nodes
    ranges: Mapping[str, float] | None = (
        None  # the largest |x| of each tensor; None: what is not INT8 stays FP32
    )
    key: Mapping[str, str] | None = None  # of what the scales were collected; None: they do not say
    method: str = ""  # that found the thresholds, but for those of
    widened: tuple[str, ...] = ()  # groups whose thresholds are those of least squared error

    @cached_property
    def layers(self) -> list[Layer]:
        """List the layers that can be INT8: a tensor that was always zero has no scale, so its layers cannot."""
        return [layer for layer in self.every if self.scales[layer.root] > 0]

    @property
    def dead(self) -> list[str]:
        return [layer.name for layer in self.every if not self.scales[layer.root] > 0]

    @cached_property
    def macs(self) -> dict[str, int]:
        """Group to multiplications."""
        return groups_of(self.layers)

    def widened_inside(self, keep: Collection[str]) -> tuple[str, ...]:
        """Without the groups whose thresholds no INT8 layer reads any more."""
        read = {layer.root for layer in self.layers if layer.group not in keep}
        used = {layer.group for layer in self.layers if layer.root in read}
        return tuple(group for group in self.widened if group in used)

    def methods(self, keep: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Method to the groups inside INT8 whose thresholds it found."""
        widened = self.widened_inside(keep)
        others = tuple(group for group in self.macs if group not in {*keep, *widened})
        return {method: groups for method, groups in ((self.method, others), ("mse", widened)) if groups}

    def graph(self, keep: Collection[str]) -> ModelProto:
        """Make the graph as it is written."""
        model = quantised(self.model, self.scales, names_in(self.layers, keep))
        return model if self.ranges is None else rest_in_fp16(model, self.keep_fp32, self.ranges)

    def as_computed(self, keep: Collection[str]) -> ModelProto:
        """Make the graph as a GPU computes it: the CPU runs most FP16 nodes in FP32, so the rounding is spelled out."""
        model = self.graph(keep)
        return model if self.ranges is None else rounding(model)

    def share(self, keep: Collection[str]) -> float:
        """Give the share of the multiplications with weights that is in INT8."""
        inside = sum(macs for group, macs in self.macs.items() if group not in keep)
        return inside / sum(layer.macs for layer in self.every)

    @cached_property
    def _verdicts(self) -> dict[tuple[Judge, frozenset[str]], Verdict]:
        return {}

    def verdict(self, judge: Judge, keep: Collection[str]) -> Verdict:
        """Judged once for each set of groups."""
        key = judge, frozenset(keep)
        if key not in self._verdicts:
            self._verdicts[key] = judge.verdict(self.as_computed(keep))
        return self._verdicts[key]


def scales_of(
    model: ModelProto, histograms: Mapping[str, Histogram], method: str, percentile: float = 99.99
) -> dict[str, float]:
    """Whatever the method, pixels keep their whole range, and a softmax has the scale 1/127."""
    names = list(histograms)
    counts = np.stack([histograms[name].over_range() for name in names])
    largest = np.array([histograms[name].largest for name in names])
    found = thresholds(counts, largest, method, percentile)
    pixels = pixel_tensors(model)
    softmax = {name for node in model.graph.node if node.op_type == "Softmax" for name in node.output}
    for place, name in enumerate(names):
        if name in pixels:
            found[place] = largest[place]
        elif name in softmax:
            found[place] = 1
    return dict(zip(names, int8_scales(found).tolist(), strict=True))
