"""The INT8 graph and what lies beside it: record with ledger, recipe, scales, TensorRT's cache."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from segdeploy import __version__, files
from segdeploy.calibrate.cache import CalibrationCache, write_cache
from segdeploy.calibrate.judge import Verdict
from segdeploy.calibrate.ledger import in_words, step
from segdeploy.calibrate.recipe import Recipe
from segdeploy.calibrate.search import Found, Sensitivity, names_in
from segdeploy.card import known_cards, read_card
from segdeploy.errors import QuantisationCosts
from segdeploy.graph.layers import all_macs, layers_of
from segdeploy.graph.opset import raise_for_fp16_pairs
from segdeploy.graph.precision import rounding, to_fp16
from segdeploy.graph.qdq import LEVELS
from segdeploy.graph.tidy import set_batch
from segdeploy.probing import first_not_finite, measure_ranges
from segdeploy.quantize.cover import refusal
from segdeploy.quantize.job import PRECISION, Calibrated, Job
from segdeploy.record import ArtifactRecord, read_record
from segdeploy.sessions import prepared

RANGES_ON = 4  # frames


@dataclass(frozen=True)
class Quantised:
    path: Path
    record: ArtifactRecord
    words: str
    sensitivities: list[Sensitivity]


def write(
    job: Job, calibrated: Calibrated, even: bool, found: Found, sensitivities: list[Sensitivity]
) -> Quantised:
    precision = "int8+fp16" if job.request.fp16 else "int8"
    model = calibrated.int8(names_in(calibrated.layers, found.keep))
    if job.request.fp16:
        model = with_fp16(job, model)
    if job.signature.batch is None:
        set_batch(model, None)
    for item in model.metadata_props:
        if item.key == PRECISION:
            item.value = precision
    onnx.checker.check_model(model, full_check=True)
    target = job.output / f"{job.stem}.{precision.replace('+', '.')}.onnx"
    with files.replacing(target) as part:
        part.write_bytes(model.SerializeToString())
        job.progress("judging the file that was written")
        written = onnx.load(part)
        if job.signature.batch is None:
            set_batch(written, 1)
        # The CPU runs most FP16 nodes in FP32: what a GPU rounds is seen in a graph that spells it out.
        verdict = job.judge.verdict(rounding(written) if job.request.fp16 else written)
        if job.spent(verdict) > 1:
            raise QuantisationCosts(refusal(job, calibrated, replace(found, verdict=verdict)))
        record = record_of(
            job, calibrated, found, verdict, model, precision, target.name, files.digest_of(part)
        )
        record.write(job.output)
    dataset = job.request.dataset
    recipe = Recipe(
        job.request.method,
        job.request.percentile,
        even,
        found.keep,
        calibrated.widened,
        dataset.name if dataset else None,
        dataset.split if dataset else None,
        len(job.material.images),
        job.request.seed,
        job.signature.card,
    )
    if job.request.scales is None:  # a recipe calibrates; it cannot replay a cache
        recipe.write(target.with_suffix(".recipe.yaml"))
    write_scales(job, calibrated)
    if job.request.cache_for:
        scales = named_for_tensorrt(calibrated, found.keep)
        cache = CalibrationCache(job.request.cache_for, "EntropyCalibration2", scales)
        write_cache(job.output / f"{job.stem}.calib", cache)
    return Quantised(target, record, record.verdict, sensitivities)


def with_fp16(job: Job, model: ModelProto) -> ModelProto:
    """What is not INT8 in FP16; from opset 19 on, pairs have FP16 scales and need no casts around them."""
    raise_for_fp16_pairs(model, job.path.name)
    inputs = [prepared(job.signature, frame[None]) for frame, _ in job.judge.fitted[:RANGES_ON]]
    inputs = [np.repeat(one, job.signature.batch or 1, axis=0) for one in inputs]
    name = job.signature.card
    keep = read_card(name).keep_fp32 if name in known_cards() else ()
    half = to_fp16(model, keep, measure_ranges(job.model, inputs))
    node = first_not_finite(rounding(half), inputs)
    if node is not None:
        raise QuantisationCosts(
            f"in FP16 the node {node!r} makes an infinity or a NaN of these images; name it under keep_fp32 in a card,"
            " or leave out --fp16. No graph was written"
        )
    return half


def record_of(
    job: Job, calibrated: Calibrated, found: Found, verdict: Verdict, model: ModelProto, precision: str,
    name: str, digest: str,
) -> ArtifactRecord:  # fmt: skip
    signature, parent = job.signature, read_record(job.path)
    covered, labels = calibrated.share(found.keep), job.material.labels
    with_weights = sum(layer.macs for layer in layers_of(calibrated.model))
    before = (
        [{"step": "fp32", "compared_with": parent.agreement.get("with")} | parent.agreement] if parent else []
    )
    facts = parent or ArtifactRecord(
        name, digest, signature.card, signature.interface, str(signature.size), signature.batch, precision, 0,
        {"mean": list(signature.mean), "input_scale": list(signature.scale)}, signature.resize,
        list(signature.labels.names), {"checkpoint": "unknown", "licence": "unknown"}, {},
    )  # fmt: skip
    return replace(
        facts,
        artifact=name,
        digest=digest,
        precision=precision,
        opset=next(item.version for item in model.opset_import if item.domain == ""),
        cost={"nodes": len(model.graph.node), **Counter(node.op_type for node in model.graph.node)},
        command=job.command,
        segdeploy=__version__,
        agreement={
            "with": "the FP32 graph",
            "pixel_agreement": verdict.pixel_agreement,
            "logits_error": verdict.logits_error,
            "pixels": sum(probe.frame.shape[0] * probe.frame.shape[1] for probe in job.material.probes),
        },
        ledger=[
            *before,
            step("fp32", job.judge.own, job.judge.own, labels),
            step(precision, job.judge.own, verdict, labels, int8_share=covered),
        ],
        verdict=in_words(covered, job.judge.own, verdict, labels),
        calibration={
            "method": job.method,
            "images": len(job.material.images),
            "probes": len(job.material.probes),
            "keep": list(found.keep),
            "widened": list(calibrated.widened),
            "int8_share": covered,
            "int8_share_of_all": covered * with_weights / all_macs(calibrated.model),
            "key": asdict(job.key),
            "pixels_seen": job.material.seen,
        },
    )


def write_scales(job: Job, calibrated: Calibrated) -> None:
    tensors = {}
    for name, scale in calibrated.scales.items():
        one = calibrated.histograms.get(name)
        tensors[name] = {"scale": scale}
        if one is not None:
            clipped = one.share_above(LEVELS * scale) if scale else 0.0
            tensors[name] |= {"largest": one.largest, "clipped": clipped}
    facts = {"schema": 1, "method": job.method, "key": asdict(job.key), "tensors": tensors}
    files.write_text(job.output / f"{job.stem}.scales.json", json.dumps(facts, indent=1) + "\n")


def named_for_tensorrt(calibrated: Calibrated, keep: Collection[str]) -> dict[str, float]:
    """Of the tensors that INT8 layers read; TensorRT computes in INT8 whatever has a scale.

    TensorRT knows a tensor by its name in the ONNX; one that only reorders another has that one's scale.
    """
    inside = [layer for layer in calibrated.layers if layer.group not in keep]
    names = {name: layer.root for layer in inside for name in (layer.root, layer.activation)}
    return {name: calibrated.scales[root] for name, root in names.items()}
