"""Scales for the tensors that layers read: counted on images, or read from a TensorRT calibration cache."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from segdeploy.calibrate.cache import read_cache
from segdeploy.calibrate.collect import collect, fitted
from segdeploy.calibrate.search import names_in
from segdeploy.errors import CalibrationError
from segdeploy.graph.equalise import equalised, norms_to_equalise
from segdeploy.graph.layers import layers_of
from segdeploy.quantize.job import Calibrated, Job, scales_of
from segdeploy.sessions import prepared
from segdeploy.sessions.taps import TapSession

PEAKS_ON = 16  # images, for the largest value of a channel


def calibrate(job: Job) -> tuple[Calibrated, bool]:
    """Scales for the graph as it is or, where that is asked for or does less damage in INT8, equalised first."""
    if job.request.scales is not None:
        return read_scales(job.model, job.request.scales), False
    recipe = job.request.recipe
    wanted = job.request.equalise
    if recipe is not None and recipe.equalise is not None:
        wanted = "on" if recipe.equalise else "off"
    if job.request.cache_for is not None or not norms_to_equalise(job.model):
        wanted = "off"
    if wanted != "on":
        as_it_is = scaled(job, job.model, "calibration")
        if wanted == "off":
            return as_it_is, False
    job.progress("equalising the channels behind LayerNorms")
    balanced = scaled(job, equalised(job.model, channel_peaks(job)), "equalised")
    if wanted == "on":
        return balanced, True
    job.progress("comparing INT8 with and without equalisation")
    plain, even = (job.judge.verdict(one.int8(names_in(one.layers, ()))) for one in (as_it_is, balanced))
    better = job.drop(even) < job.drop(plain) if job.material.labels else even.kl < plain.kl
    return (balanced, True) if better else (as_it_is, False)


def scaled(job: Job, model: ModelProto, called: str) -> Calibrated:
    layers = layers_of(model)
    roots = sorted({layer.root for layer in layers})
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        job.progress(f"calibrating on image {done} of {len(job.material.images)}")

    state = job.output / f"{job.stem}.{called}.npz"
    histograms = collect(
        model, job.signature, roots, job.material.images, key=job.key, state=state, progress=one_more
    )
    scales = scales_of(model, histograms, job.request.method, job.request.percentile)
    living = [layer for layer in layers if scales[layer.root] > 0]  # a dead tensor's layer stays as it is
    return Calibrated(model, living, histograms, scales)


def read_scales(model: ModelProto, path: Path) -> Calibrated:
    """From a calibration cache that TensorRT or we have written for this very graph."""
    cache, layers = read_cache(path), layers_of(model)
    scales = {
        layer.root: cache.scales.get(layer.root, cache.scales.get(layer.activation)) for layer in layers
    }
    missing = sorted(name for name, scale in scales.items() if scale is None)
    if missing:
        raise CalibrationError(
            f"{path} has no scale for {len(missing)} of the {len(scales)} tensors that layers of this graph read"
            f" ({', '.join(missing[:3])}, …); it was made for another graph, so calibrate this one"
        )
    known = {name: scale for name, scale in scales.items() if scale is not None}
    return Calibrated(model, [layer for layer in layers if known[layer.root] > 0], {}, known)


def channel_peaks(job: Job) -> dict[str, NDArray[np.float32]]:
    """The largest |x| of each channel behind each LayerNorm that can be equalised."""
    session = TapSession(job.model, list(norms_to_equalise(job.model)))
    peaks: dict[str, NDArray[np.float32]] = {}
    with ThreadPoolExecutor(1) as pool:
        for frame in fitted(job.material.images[:PEAKS_ON], job.signature, pool):
            batch = np.repeat(frame[None], job.signature.batch or 1, axis=0)
            for name, values in session.run(prepared(job.signature, batch)):
                largest = np.abs(values).reshape(-1, values.shape[-1]).max(0)
                peaks[name] = np.maximum(peaks.get(name, largest), largest)
    return peaks
