"""Scales for the tensors that layers read: counted on images, or read from a TensorRT calibration cache."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from segdeploy.convert.int8.cache import demand_version
from segdeploy.convert.int8.collect import Add, CalibrationKey, collect, fitted
from segdeploy.convert.int8.histogram import Histogram
from segdeploy.convert.int8.job import Calibrated, Job, scales_of
from segdeploy.convert.int8.options import AUTO
from segdeploy.convert.int8.rivals import better
from segdeploy.convert.int8.scale_files import NO_VERSION, key_in, read_scale_file
from segdeploy.convert.int8.spread import added_by_crew
from segdeploy.errors import CalibrationError
from segdeploy.graph.equalise import equalised, factors_for, norms_to_equalise, with_equalised
from segdeploy.graph.layers import Layer, layers_of, results_of_layers
from segdeploy.model.card import card_called
from segdeploy.prove.ranges import measure_ranges
from segdeploy.run.inner_tensors import TapSession
from segdeploy.run.io import to_input

PEAKS_ON = 16  # images, for the largest value of a channel
RANGES_ON = 4  # batches, for what comes near FP16's limit


def calibrate(job: Job) -> tuple[Calibrated, bool]:
    """Scales for the graph as it is or, where that is asked for or does less damage in INT8, equalised first."""
    if job.request.scales is not None:
        return read_scales(job, job.request.scales), False
    recipe = job.request.recipe
    wanted = job.request.equalise
    if recipe is not None and recipe.equalise is not None:
        wanted = "on" if recipe.equalise else "off"
    if job.request.cache_for is not None or not norms_to_equalise(job.model):
        wanted = "off"
    if wanted == "off":
        return scaled(job, job.model, counted_values(job, job.model, roots_of(job.model))), False
    job.progress("equalising the channels behind LayerNorms")
    factors = factors_for(job.model, channel_peaks(job))
    balanced = equalised(job.model, factors)
    # Only what LayerNorms make differs, so both are counted in one run.
    both, beside = with_equalised(job.model, factors)
    of_balanced = {root: beside.get(root, root) for root in roots_of(job.model)}
    plain: set[str] = set() if wanted == "on" else set(of_balanced)
    histograms = counted_values(job, both, {*of_balanced.values(), *plain})
    even = scaled(job, balanced, {root: histograms[name] for root, name in of_balanced.items()})
    if wanted == "on":
        return even, True
    as_it_is = scaled(job, job.model, {root: histograms[root] for root in plain})
    job.progress("comparing INT8 with and without equalisation")
    changes = as_it_is.verdict(job.judge, ()).changes
    if better(changes, job.judge.changes(even.as_computed(()))) is None:
        return as_it_is, False
    return even, True


def roots_of(model: ModelProto) -> set[str]:
    return {layer.root for layer in layers_of(model)}


def counted_values(job: Job, model: ModelProto, tensors: Collection[str]) -> dict[str, Histogram]:
    if job.request.cache_for:
        tensors = {*tensors, *(names[-1] for names in results_of_layers(model).values())}
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        job.progress(f"calibrating on image {done} of {len(job.material.images)}")

    state, names = job.output / f"{job.stem}.calibration.npz", sorted(tensors)
    add: Add | None = None
    if (request := job.request).is_spread_out:
        parts = state.with_suffix(".parts")
        add = added_by_crew(model, job.signature, names, job.key, parts, request.processes, request.ray)
    return collect(
        model, job.signature, names, job.material.images, key=job.key, state=state, progress=one_more, add=add
    )


def scaled(job: Job, model: ModelProto, histograms: dict[str, Histogram]) -> Calibrated:
    method = "mse" if job.request.method == AUTO else job.request.method  # until groups choose
    scales = scales_of(model, histograms, method, job.request.percentile)
    return replace(with_scales(job, model, layers_of(model), histograms, scales), method=method)


def with_scales(
    job: Job,
    model: ModelProto,
    layers: list[Layer],
    histograms: dict[str, Histogram],
    scales: dict[str, float],
) -> Calibrated:
    keep_fp32: tuple[str, ...] = ()
    ranges = None
    if job.request.fp16:
        card = job.request.card or card_called(job.signature.card)
        keep_fp32 = card.keep_fp32 if card else ()
        ranges = measure_ranges(model, [inputs for _, inputs in islice(job.judge.batches(), RANGES_ON)])
    made = Calibrated(model, layers, histograms, scales, keep_fp32, ranges, asdict(job.key))
    if not made.layers:
        raise CalibrationError(
            f"all {len(layers)} layers with weights read tensors whose scale is 0, so none can be INT8; calibrate on"
            " images that the network was made for"
        )
    return made


def read_scales(job: Job, path: Path) -> Calibrated:
    """From TensorRT's calibration cache or our scales.json, written for this very graph."""
    cache, layers = read_scale_file(path), layers_of(job.model)
    key = demand_same(path, job.key)
    if job.request.cache_for and cache.tensorrt != NO_VERSION:
        demand_version(path, cache, job.request.cache_for)
    scales = {
        layer.root: cache.scales.get(layer.root, cache.scales.get(layer.activation)) for layer in layers
    }
    if job.request.cache_for:
        scales |= {
            names[-1]: cache.scales.get(names[-1])
            for names in results_of_layers(job.model).values()
            if names[-1] not in scales
        }
    missing = sorted(name for name, scale in scales.items() if scale is None)
    if missing:
        use = "read or make" if job.request.cache_for else "read"
        raise CalibrationError(
            f"{path} has no scale for {len(missing)} of the {len(scales)} tensors that layers of this graph {use}"
            f" ({', '.join(missing[:3])}, …); it was made for another graph, so calibrate this one"
        )
    known = {name: scale for name, scale in scales.items() if scale is not None}
    return replace(with_scales(job, job.model, layers, {}, known), key=key, method=path.name)


def demand_same(path: Path, key: CalibrationKey) -> dict[str, str] | None:
    """Return the file's key; refuse one that was collected from another graph or another preprocessing."""
    theirs = key_in(path)
    if theirs is None:
        return None
    ours = asdict(key)
    if any(theirs.get(name) != ours[name] for name in ("graph", "preprocessing")):
        found, wanted = (
            f"graph {one.get('graph', '')[:12]}, preprocessing {one.get('preprocessing', '')[:12]}"
            for one in (theirs, ours)
        )
        raise CalibrationError(
            f"{path} was collected for {found}; asked for now is {wanted}. Calibrate this graph, or give the scales"
            " that quantize wrote for it"
        )
    return theirs


def channel_peaks(job: Job) -> dict[str, NDArray[np.float32]]:
    """The largest |x| of each channel behind each LayerNorm that can be equalised."""
    session = TapSession(job.model, list(norms_to_equalise(job.model)))
    peaks: dict[str, NDArray[np.float32]] = {}
    with ThreadPoolExecutor(1) as pool:
        for frame in fitted(job.material.images[:PEAKS_ON], job.signature, pool):
            batch = np.repeat(frame[None], job.signature.batch or 1, axis=0)
            for name, values in session.run(to_input(job.signature, batch)):
                largest = np.abs(values).reshape(-1, values.shape[-1]).max(0)
                peaks[name] = np.maximum(peaks.get(name, largest), largest)
    return peaks
