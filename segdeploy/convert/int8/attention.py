"""Scales for the operands of attention's products, with which a CPU's copy of an INT8 graph multiplies bytes there too.

The file has no pairs there, since TensorRT computes attention as one kernel. The scales are kept beside the others, and
only for products that keep the labels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from onnx import ModelProto

from segdeploy.convert.int8.collect import ImageCounter, Tally
from segdeploy.convert.int8.histogram import Histogram
from segdeploy.convert.int8.job import Calibrated, Job
from segdeploy.convert.int8.scale_files import attention_in
from segdeploy.convert.int8.thresholds import thresholds
from segdeploy.graph.attention import operands_of_attention, outputs_of_softmax
from segdeploy.graph.int8 import LEVELS, UNSIGNED_LEVELS
from segdeploy.graph.view import View, copy_of
from segdeploy.prove.choose import spread
from segdeploy.run.byte_copy import quantise_attention

# Images, and of their values one of so many, since a softmax has tens of millions.
MEASURED_ON, EVERY = 4, 7
MAY_CHANGE = 0.01  # of the labels on a few probes, more than INT8 without attention does
TRIED = np.geomspace(1 / 64, 1, 49)  # thresholds of a softmax, of its largest value


def attention_scales(job: Job, calibrated: Calibrated, keep: Collection[str]) -> dict[str, float]:
    """Give the scales of the products that keep the labels of the INT8 graph with the groups `keep` outside."""
    view = View(calibrated.model)
    products = operands_of_attention(view)
    if not products or job.request.fp16:
        return {}
    if job.request.scales is not None:
        scales = attention_in(job.request.scales)
    else:
        scales = measured_scales(
            job, calibrated.model, sorted({name for both in products.values() for name in both})
        )
    shares = outputs_of_softmax(view)
    mixing = {name for both in products.values() if shares & set(both) for name in both}
    job.progress("comparing INT8 with and without attention")
    written = calibrated.graph(keep)
    most = sum(job.on_few(calibrated.verdict(job.judge, keep))) + MAY_CHANGE * job.few.own.agreement.pixels
    for names in (scales.keys(), scales.keys() - mixing, scales.keys() & mixing):
        kept = {name: scales[name] for name in sorted(names)}
        tried = copy_of(written)
        quantise_attention(tried, kept)
        if kept and sum(job.few.changes(tried)) <= most:
            return kept
    return {}


def measured_scales(job: Job, model: ModelProto, operands: list[str]) -> dict[str, float]:
    images = [job.material.images[place] for place in spread(len(job.material.images), MEASURED_ON)]
    tally = Tally.of(operands)
    for done, _ in enumerate(ImageCounter(model, job.signature, operands, every=EVERY).add(tally, images), 1):
        job.progress(f"measuring attention on image {done} of {len(images)}")
    view = View(model)
    keys = {name: (0, *view.shapes.get(name, ()))[-1] for name in outputs_of_softmax(view)}  # 0: not known
    found = {
        name: threshold_of_shares(tally.histograms[name], keys[name]) / UNSIGNED_LEVELS
        for name in operands
        if keys.get(name)
    } | signed_scales({name: tally.histograms[name] for name in operands if name not in keys})
    return {name: scale for name, scale in found.items() if scale > 0}


def signed_scales(histograms: Mapping[str, Histogram]) -> dict[str, float]:
    counts = np.stack([one.over_range() for one in histograms.values()])
    largest = np.array([one.largest for one in histograms.values()])
    return dict(zip(histograms, (thresholds(counts, largest, "mse") / LEVELS).tolist(), strict=True))


def threshold_of_shares(histogram: Histogram, keys: int) -> float:
    """Choose the threshold by which a row of a softmax, of so many `keys`, is least wrong as a sum.

    Rounding errors of a row are as good as independent, and add up as their squares. What all have in common, as where
    small shares become nothing, adds up itself. On CamVid, B0 at 512x1024 (512 keys) keeps 98.8 % of the INT8 graph's
    labels so; 98.2 % by the least squared error of a share, 95.5 % by the whole range.
    """
    used = int(np.flatnonzero(histogram.counts)[-1]) + 1 if histogram.seen else 0
    if not used:
        return 0.0
    values = (np.arange(used) + 0.5) * (2.0**histogram.exponent / len(histogram.counts))
    weights = histogram.counts[:used] / histogram.seen

    def cost(threshold: float) -> float:
        scale = threshold / UNSIGNED_LEVELS
        errors = np.minimum(np.rint(values / scale), UNSIGNED_LEVELS) * scale - values
        return float(keys * (weights @ errors**2) + keys * (keys - 1) * (weights @ errors) ** 2)

    return float(min(histogram.largest * TRIED, key=cost))
