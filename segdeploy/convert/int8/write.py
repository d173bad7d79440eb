"""The INT8 graph and what lies beside it: record with ledger, recipe, scales, TensorRT's cache."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from segdeploy import files
from segdeploy.convert.fp16 import as_computed
from segdeploy.convert.int8.attention import attention_scales
from segdeploy.convert.int8.cache import CalibrationCache, cache_text
from segdeploy.convert.int8.histogram import BINS
from segdeploy.convert.int8.job import Calibrated, Job
from segdeploy.convert.int8.layer_choice import recipe_of, refusal
from segdeploy.convert.int8.scales import RANGES_ON
from segdeploy.convert.int8.search import Found
from segdeploy.convert.other_sizes import judge_elsewhere
from segdeploy.errors import GraphError, QuantisationCosts
from segdeploy.graph.attention import store_scales
from segdeploy.graph.int8 import LEVELS
from segdeploy.graph.layers import results_of_layers
from segdeploy.graph.load import Graph, graph_in
from segdeploy.graph.open_sizes import reopened
from segdeploy.graph.precision import shares_of, write_facts
from segdeploy.graph.tidy import set_batch
from segdeploy.graph.view import copy_of
from segdeploy.model.record import ArtifactRecord, Calibration, Sensitivity, record_of_graph, record_path
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.judge import Verdict
from segdeploy.prove.ledger import (
    drop_of,
    first_step,
    int8_in_words,
    record_from_graph,
    shares_by_size,
    step_of,
    where_judged,
)
from segdeploy.size import Size


@dataclass(frozen=True)
class Quantised:
    graph: Graph
    record: ArtifactRecord
    calibration: Calibration

    @property
    def path(self) -> Path:
        return self.graph.path

    def __str__(self) -> str:
        return f"{self.path}: {self.record.verdict}"


def demand_consistent(model: ModelProto, name: str) -> None:
    """Refuse what a foreign graph says of its tensors' sides where its nodes compute others."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # onnx's own, which depends on its version
        said = " ".join(str(error).split())[:200]
        raise GraphError(
            f"{name} says other sizes than its nodes compute ({said}); export it again"
        ) from error


def write_graph(
    job: Job, calibrated: Calibrated, even: bool, found: Found, sensitivities: list[Sensitivity]
) -> Quantised:
    """Graph, record and what lies beside them: all of it, or nothing where the file costs more than it may."""
    precision = "int8+fp16" if job.request.fp16 else "int8"
    fixed = model = calibrated.graph(found.keep)
    of_attention = attention_scales(job, calibrated, found.keep)
    if job.signature.batch is None:
        set_batch(model, None)
    if job.whole.signature.sizes:
        model = reopened(fixed, job.whole.model)
    write_facts(model, job.whole.signature, precision)
    store_scales(model, of_attention)
    demand_consistent(model, job.stem)
    target = job.output / f"{job.stem}.{precision.replace('+', '.')}.onnx"
    beside = {"scales": target.with_suffix(".scales.json"), "record": record_path(target)}
    if job.request.scales is None:  # a recipe calibrates; it cannot replay a cache
        beside["recipe"] = target.with_suffix(".recipe.yaml")
    if job.request.cache_for:
        beside["cache"] = target.with_suffix(".calib")
    with files.replacing_together(*beside.values(), target) as [*others, part]:
        parts = dict(zip(beside, others, strict=True))
        part.write_bytes(model.SerializeToString())
        job.progress("judging the file that was written")
        written = graph_in(part.read_bytes(), target)
        verdict = verdict_on(job, written.at(job.signature.size))
        by_size = {job.signature.size: verdict.agreement} | agreement_elsewhere(job, written)
        if job.spent(verdict) > 1:
            raise QuantisationCosts(refusal(job, calibrated, even, replace(found, verdict=verdict)))
        calibration = recorded_calibration(job, calibrated, found, sensitivities)
        parent = record_of_graph(job.source.path, job.source.digest)
        facts = record_from_graph(parent, written, precision)
        record = replace(
            with_ledger(facts, job, calibrated, verdict, fixed, by_size, calibration), command=job.command
        )
        parts["record"].write_text(record.as_text(), encoding="utf-8")
        parts["scales"].write_text(scales_text(job, calibrated, even, of_attention), encoding="utf-8")
        if "recipe" in parts:
            parts["recipe"].write_text(recipe_of(job, calibrated, even, found).as_text(), encoding="utf-8")
        if job.request.cache_for:
            scales = named_for_tensorrt(calibrated, found.keep)
            cache = CalibrationCache(job.request.cache_for, "EntropyCalibration2", scales)
            parts["cache"].write_text(cache_text(cache), encoding="utf-8")
    return Quantised(written, record, calibration)


def verdict_on(job: Job, written: Graph) -> Verdict:
    model = copy_of(written.model)
    if job.signature.batch is None:
        set_batch(model, 1)
    if not job.request.fp16:
        return job.judge.verdict(model)
    inputs = [inputs for _, inputs in islice(job.judge.batches(), RANGES_ON)]
    return job.judge.verdict(as_computed(model, inputs, written.name))


def agreement_elsewhere(job: Job, written: Graph) -> dict[Size, Agreement]:
    """Judge the graph at its other sizes by the same limit."""
    found = judge_elsewhere(job.whole, written.model, job.judge)
    for size, (own, verdict) in found.items():
        if (drop := drop_of(own, verdict)) > job.limit:
            unit = "per cent of the labels" if own.miou is None else "points of mIoU"
            raise QuantisationCosts(
                f"at {size} INT8 costs {drop:.2f} {unit}, more than the {job.limit:g} allowed, with scales that were"
                f" found at {job.signature.size}; calibrate at that size (--size {size}), allow more (--max-drop), or"
                " export the sizes by themselves. No file was written"
            )
    return {size: verdict.agreement for size, (_, verdict) in found.items()}


def recorded_calibration(
    job: Job, calibrated: Calibrated, found: Found, sensitivities: list[Sensitivity]
) -> Calibration:
    collected = job.request.scales is None  # else what the scales were collected on is not known
    return Calibration(
        method=job.method,
        images=len(job.material.images) if collected else None,
        probes=len(job.material.probes),
        int8_share=calibrated.share(found.keep),
        keep=tuple(found.keep),
        methods=calibrated.methods(found.keep),
        dead=tuple(calibrated.dead),
        held_out=job.material.held_out if collected else None,
        sensitivities=tuple(sensitivities),
        key=None if calibrated.key is None else dict(calibrated.key),
        pixels_seen=job.material.seen if collected else None,
    )


def with_ledger(
    facts: ArtifactRecord,
    job: Job,
    calibrated: Calibrated,
    verdict: Verdict,
    model: ModelProto,
    by_size: Mapping[Size, Agreement],
    said: Calibration,
) -> ArtifactRecord:
    """Say in the record what each step cost: FP32, FP16 where that is asked for too, and the graph that was written."""
    own, labels, shares = job.judge.own, job.material.labels, shares_of(model)
    ledger = [first_step(own, facts.agreement, shares_of(job.model))]
    if job.request.fp16:
        job.progress("judging FP16 alone")
        none = list(calibrated.macs)
        half = calibrated.verdict(job.judge, none)
        ledger.append(step_of("fp16", own, half, labels, shares_of(calibrated.graph(none))))
    last = step_of(facts.precision, own, verdict, labels, shares)
    ledger.append(replace(last, by_size=shares_by_size(by_size)))
    judged = where_judged(said.probes, said.held_out)
    words = int8_in_words(said.int8_share, shares.get("int8", 0), own, verdict, labels, judged)
    return replace(facts, ledger=tuple(ledger), verdict=words, calibration=said)


def scales_text(job: Job, calibrated: Calibrated, even: bool, of_attention: Mapping[str, float]) -> str:
    tensors: dict[str, dict[str, float]] = {}
    for name, scale in calibrated.scales.items():
        one = calibrated.histograms.get(name)
        tensors[name] = {"scale": scale}
        if one is not None:
            clipped = one.share_above(LEVELS * scale) if scale else 0.0
            tensors[name] |= {"largest": one.largest, "clipped": clipped}
    facts = {
        "schema": 1,
        "method": job.method,
        "equalised": even,
        "key": calibrated.key,
        "tensors": tensors,
        "attention": dict(of_attention),
    }
    return json.dumps(facts, indent=1) + "\n"


def named_for_tensorrt(calibrated: Calibrated, keep: Collection[str]) -> dict[str, float]:
    """Gives the scales of what INT8 layers read and make: TensorRT needs both to compute a layer in INT8.

    TensorRT knows a tensor by its name in the ONNX; one that only reorders another has that one's scale. The bias
    that is added behind a product is fused into it, so before and behind it the scale is the same.
    """
    inside = [layer for layer in calibrated.layers if layer.group not in keep]
    origins = {name: layer.root for layer in inside for name in (layer.root, layer.activation)}
    made = results_of_layers(calibrated.model)
    for layer in inside:
        origins |= {name: made[layer.name][-1] for name in made[layer.name] if name not in origins}
    weights = {item.name: item for item in calibrated.model.graph.initializer}
    products = {node.name for node in calibrated.model.graph.node if node.op_type in ("MatMul", "Gemm")}
    constants = {
        layer.weight: constant_scale(onnx.numpy_helper.to_array(weights[layer.weight]))
        for layer in inside
        if layer.name in products  # a tensor of its own there; a convolution's weights are not
    }
    return {name: calibrated.scales[origin] for name, origin in origins.items()} | constants


def constant_scale(values: NDArray[np.float32]) -> float:
    """Gives a constant's scale as TensorRT writes it: the middle of the bin behind the last of 2048."""
    return float(np.abs(values).max() * np.float32((BINS + 0.5) / BINS) / np.float32(LEVELS))
