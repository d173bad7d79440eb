"""An FP32 graph to INT8: calibrated, searched for what INT8 may cover, judged, and refused where it costs too much.

Everything is measured in ONNX Runtime on the user's own images. The ledger in the record says what each step cost.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from segdeploy import __version__, files
from segdeploy.calibrate.cache import CalibrationCache, read_cache, version_number, write_cache
from segdeploy.calibrate.collect import Key, collect, fitted, key_of
from segdeploy.calibrate.histogram import Histogram
from segdeploy.calibrate.judge import Judge, Verdict
from segdeploy.calibrate.ledger import drop_of, in_words, step
from segdeploy.calibrate.material import Material, labelled, unlabelled
from segdeploy.calibrate.recipe import Recipe
from segdeploy.calibrate.search import Found, Sensitivity, measure, names_in, search
from segdeploy.calibrate.thresholds import demand_method, int8_scales, thresholds
from segdeploy.errors import CalibrationError, GraphError, QuantisationCosts, RequestError
from segdeploy.evaluate.datasets import Dataset
from segdeploy.evaluate.evaluate import read_pair
from segdeploy.graph.equalise import equalised, norms_to_equalise
from segdeploy.graph.layers import Layer, all_macs, layers_of
from segdeploy.graph.precision import rounding, to_fp16
from segdeploy.graph.qdq import LEVELS, quantised, refuse_quantised
from segdeploy.image import find_images
from segdeploy.record import ArtifactRecord, read_record
from segdeploy.sessions import open_session, prepared
from segdeploy.sessions.taps import TapSession
from segdeploy.signature import PREFIX, Signature

Progress = Callable[[str], None]
PROBES = 24
RANKED_ON = 8  # of the probes, the sensitivity of each group
MAX_DROP, MAX_DISAGREEMENT = 0.5, 3.0  # points of mIoU with truth; per cent of the labels without
EQUALISE = ("auto", "on", "off")
MOST_IMAGES = 500  # more are read only when they are asked for
PEAKS_ON = 16  # images, for the largest value of a channel
PRECISION = f"{PREFIX}precision"
OPSET_OF_FP16_PAIRS = 19


@dataclass(frozen=True)
class Request:
    """What `quantize` was asked for; the images are a folder or a labelled data set."""

    images: Path | None = None
    dataset: Dataset | None = None
    count: int | None = None  # None: all, up to 500
    probes: int = PROBES
    max_drop: float | None = None
    equalise: str = "auto"
    recipe: Recipe | None = None  # replayed: what it says is not searched for
    scales: Path | None = None  # TensorRT's calibration cache, instead of a calibration
    method: str = "entropy"
    percentile: float = 99.99
    seed: int = 0
    fp16: bool = False  # what stays out of INT8 is FP16
    cache_for: str | None = None  # a TensorRT version: its calibration cache is written too


@dataclass(frozen=True)
class Quantised:
    path: Path
    record: ArtifactRecord
    words: str
    sensitivities: list[Sensitivity]


@dataclass(frozen=True)
class Job:
    """One run: the graph, the request, and what both are judged on."""

    path: Path
    model: ModelProto
    signature: Signature
    request: Request
    material: Material
    judge: Judge
    key: Key
    output: Path
    command: str
    progress: Progress

    @property
    def stem(self) -> str:
        return self.path.name.removesuffix(".onnx")

    @property
    def limit(self) -> float:
        if self.request.max_drop is not None:
            return self.request.max_drop
        return MAX_DROP if self.material.labels else MAX_DISAGREEMENT

    def drop(self, verdict: Verdict) -> float:
        return drop_of(self.judge.own, verdict)


@dataclass(frozen=True)
class Calibrated:
    """A graph and the scales of the tensors that its layers read."""

    model: ModelProto
    layers: list[Layer]  # those that can be INT8
    histograms: dict[str, Histogram]
    scales: dict[str, float]

    def int8(self, names: Collection[str]) -> ModelProto:
        return quantised(self.model, self.scales, names)

    def share(self, keep: Collection[str]) -> float:
        """Of the multiplications with weights, those that are in INT8."""
        inside = sum(layer.macs for layer in self.layers if layer.group not in keep)
        return inside / sum(layer.macs for layer in layers_of(self.model))


def quantize(
    path: Path, request: Request, *, output: Path, command: str = "", progress: Progress = lambda step: None
) -> Quantised:
    model, signature = read_graph(path)
    demand_sense(request)
    progress("choosing images")
    material = gather(request, signature)
    files.make_folder(output)
    classes = len(material.labels.names) if material.labels else None
    judge = Judge(model, signature, material.probes, classes=classes, translate=material.translate)
    key = key_of(path, signature, material.images, "stretch")
    job = Job(path, model, signature, request, material, judge, key, output, command, progress)
    calibrated, even = calibrate(job)
    sensitivities: list[Sensitivity] = []
    if request.recipe and request.recipe.keep is not None:
        found = replayed(job, calibrated, request.recipe.keep)
    else:
        found = searched(job, calibrated, sensitivities)
    if not found.met:
        raise QuantisationCosts(refusal(job, calibrated, found))
    return write(job, calibrated, even, found, sensitivities)


def read_graph(path: Path) -> tuple[ModelProto, Signature]:
    with open_session(path) as session:
        signature = session.signature
    model = onnx.load(path)
    refuse_quantised(model)
    precision = next((item.value for item in model.metadata_props if item.key == PRECISION), "fp32")
    if precision != "fp32":
        raise GraphError(f"{path.name} is {precision}; quantise the FP32 graph it came from")
    if not layers_of(model):
        raise GraphError(f"{path.name} has no layer with weights that could be quantised")
    return model, signature


def demand_sense(request: Request) -> None:
    if (request.images is None) == (request.dataset is None):
        raise RequestError("give either --images DIR, or a labelled data set with --dataset and --root")
    if request.equalise not in EQUALISE:
        raise RequestError(f"--equalise {request.equalise!r} is not known; known: {', '.join(EQUALISE)}")
    demand_method(request.method, request.percentile)
    for name, value in (("--count", request.count), ("--probes", request.probes)):
        if value is not None and value < 1:
            raise RequestError(f"{name} {value} is less than 1")
    if request.max_drop is not None and not 0 <= request.max_drop <= 100:
        raise RequestError(f"--max-drop {request.max_drop:g} is outside 0 to 100")
    if request.cache_for is not None:
        version_number(request.cache_for)


def gather(request: Request, signature: Signature) -> Material:
    if request.images is not None:
        count = request.count or min(MOST_IMAGES, len(find_images(request.images)))
        return unlabelled(request.images, count, request.seed, request.probes)
    dataset = request.dataset
    assert dataset is not None  # noqa: S101 - demand_sense has seen to it
    return labelled(
        [pair.image for pair in dataset.pairs],
        lambda place: read_pair(dataset, place),
        dataset.labels,
        dataset.lookup_from(signature.labels),
        request.count or min(MOST_IMAGES, len(dataset)),
        request.seed,
        request.probes,
        f"{dataset.name} {dataset.split}".strip(),
    )


# ---- calibration -----------------------------------------------------------------------------------------------


def calibrate(job: Job) -> tuple[Calibrated, bool]:
    """Scales for the graph as it is or, where that is asked for or does less damage in INT8, equalised first."""
    if job.request.scales is not None:
        return read_scales(job.model, job.request.scales), False
    recipe = job.request.recipe
    wanted = ("on" if recipe.equalise else "off") if recipe else job.request.equalise
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


def scales_of(
    model: ModelProto, histograms: Mapping[str, Histogram], method: str, percentile: float
) -> dict[str, float]:
    names = list(histograms)
    counts = np.stack([histograms[name].over_range() for name in names])
    largest = np.array([histograms[name].largest for name in names])
    scales = int8_scales(thresholds(counts, largest, method, percentile)).tolist()
    softmax = {name for node in model.graph.node if node.op_type == "Softmax" for name in node.output}
    known = float(np.float32(1 / 127))
    return {name: known if name in softmax else scale for name, scale in zip(names, scales, strict=True)}


def channel_peaks(job: Job) -> dict[str, NDArray[np.float32]]:
    """The largest |x| of each channel behind each LayerNorm that can be equalised."""
    session = TapSession(job.model, list(norms_to_equalise(job.model)))
    peaks: dict[str, NDArray[np.float32]] = {}
    with ThreadPoolExecutor(1) as pool:
        for frame in fitted(job.material.images[:PEAKS_ON], job.signature, "stretch", pool):
            batch = np.repeat(frame[None], job.signature.batch or 1, axis=0)
            for name, values in session.run(prepared(job.signature, batch)):
                largest = np.abs(values).reshape(-1, values.shape[-1]).max(0)
                peaks[name] = np.maximum(peaks.get(name, largest), largest)
    return peaks


# ---- what INT8 may cover ---------------------------------------------------------------------------------------


def searched(job: Job, calibrated: Calibrated, sensitivities: list[Sensitivity]) -> Found:
    few = Judge(job.model, job.signature, job.material.probes[:RANKED_ON])

    def measured() -> list[Sensitivity]:
        sensitivities.extend(measure(calibrated.layers, calibrated.int8, few, job.progress))
        return sensitivities

    return search(calibrated.layers, calibrated.int8, job.judge, job.drop, job.limit, measured, job.progress)


def replayed(job: Job, calibrated: Calibrated, keep: tuple[str, ...]) -> Found:
    unknown = sorted(set(keep) - {layer.group for layer in layers_of(calibrated.model)})
    if unknown:
        raise CalibrationError(f"the recipe keeps {', '.join(unknown)}, which this graph does not have")
    verdict = job.judge.verdict(calibrated.int8(names_in(calibrated.layers, keep)))
    return Found(keep, verdict, job.drop(verdict) <= job.limit)


def refusal(job: Job, calibrated: Calibrated, found: Found) -> str:
    unit = "points of mIoU" if job.material.labels else "% of the labels"
    return (
        f"INT8 costs {job.drop(found.verdict):.2f} {unit} even at its best, with"
        f" {calibrated.share(found.keep):.0%} of the multiplications in INT8 and"
        f" {', '.join(found.keep) or 'nothing'} kept out of it; allowed are {job.limit:g}."
        " No file was written; try a larger --max-drop or another --method"
    )


# ---- what is written -------------------------------------------------------------------------------------------


def write(
    job: Job, calibrated: Calibrated, even: bool, found: Found, sensitivities: list[Sensitivity]
) -> Quantised:
    precision = "int8+fp16" if job.request.fp16 else "int8"
    model = calibrated.int8(names_in(calibrated.layers, found.keep))
    if job.request.fp16:
        model = with_fp16(model)
    for item in model.metadata_props:
        if item.key == PRECISION:
            item.value = precision
    onnx.checker.check_model(model, full_check=True)
    target = job.output / f"{job.stem}.{precision.replace('+', '.')}.onnx"
    with files.replacing(target) as part:
        part.write_bytes(model.SerializeToString())
        job.progress("judging the file that was written")
        written = onnx.load(part)
        # The CPU runs most FP16 nodes in FP32: what a GPU rounds is seen in a graph that spells it out.
        verdict = job.judge.verdict(rounding(written) if job.request.fp16 else written)
        if job.drop(verdict) > job.limit:
            raise QuantisationCosts(refusal(job, calibrated, replace(found, verdict=verdict)))
        record = record_of(
            job, calibrated, found, verdict, model, precision, target.name, files.digest_of(part)
        )
        record.write(job.output)
    dataset = job.request.dataset
    recipe = Recipe(
        job.request.method, job.request.percentile, even, found.keep, dataset.name if dataset else None,
        dataset.split if dataset else None, len(job.material.images), job.request.seed, job.signature.card,
    )  # fmt: skip
    recipe.write(job.output / f"{job.stem}.int8.recipe.yaml")
    write_scales(job, calibrated)
    if job.request.cache_for:
        scales = named_for_tensorrt(calibrated)
        cache = CalibrationCache(job.request.cache_for, "EntropyCalibration2", scales)
        write_cache(job.output / f"{job.stem}.calib", cache)
    return Quantised(target, record, record.verdict, sensitivities)


def with_fp16(model: ModelProto) -> ModelProto:
    """What is not INT8 in FP16; from opset 19 on, pairs have FP16 scales and need no casts around them."""
    for item in model.opset_import:
        if item.domain == "" and item.version < OPSET_OF_FP16_PAIRS:
            item.version = OPSET_OF_FP16_PAIRS
    model.ir_version = max(model.ir_version, 9)
    return to_fp16(model)


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
            "method": job.request.scales.name if job.request.scales else job.request.method,
            "images": len(job.material.images),
            "probes": len(job.material.probes),
            "keep": list(found.keep),
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
    facts = {"schema": 1, "method": job.request.method, "key": asdict(job.key), "tensors": tensors}
    files.write_text(job.output / f"{job.stem}.scales.json", json.dumps(facts, indent=1) + "\n")


def named_for_tensorrt(calibrated: Calibrated) -> dict[str, float]:
    """TensorRT knows a tensor by its name in the ONNX; one that only reorders another has that one's scale."""
    found = {name: scale for name, scale in calibrated.scales.items() if scale}
    return found | {layer.activation: calibrated.scales[layer.root] for layer in calibrated.layers}
