"""Offers the command line's verbs as functions, with the same names: a flag is the keyword argument with a dash.

Each takes paths as text or as `Path`, sizes as "512x1024" or as `Size`, and returns a frozen result that prints well.
Each refuses what the command line refuses, with the same message, as a `SegdeployError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, TypedDict

from segdeploy.errors import RequestError
from segdeploy.given import as_optional_path, as_optional_size, as_path
from segdeploy.releases import USUAL

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from segdeploy.assess.bench.measure import Measurement
    from segdeploy.assess.evaluate.evaluate import Evaluation
    from segdeploy.convert.build_engine import Deployed
    from segdeploy.convert.int8.options import CalibrationOptions
    from segdeploy.convert.int8.write import Quantised
    from segdeploy.serve.deepstream.render import Rendered
    from segdeploy.size import Size
    from segdeploy.train.finetune import Finetuned, TrainingRequest

AnyPath = str | PathLike[str]


class TrainingWords(TypedDict, total=False):
    """Holds the arguments that say what a network learns from and what it is reported on, and the recipe's parts."""

    mapping: AnyPath
    split: str
    report_split: str
    report_root: AnyPath  # other images, where nothing says which split they are
    size: str | Size  # that it will run at
    card: str
    watch_every: int  # steps
    device: str
    threads: int
    recipe: AnyPath  # a file; the parts below are stronger
    steps: int
    batch: int
    accumulate: int
    crop: str
    rate: float
    head_rate: float
    decay: float
    warm_up: float
    power: float
    restarts: int
    balance: bool
    rare: bool
    ohem: float
    ohem_least: float
    least_scale: float
    most_scale: float
    most_of_one: float
    flip: bool
    distort: bool
    dropout: float
    auxiliary: float
    average: float
    answer_weight: float
    map_weight: float
    temperature: float
    precision: str
    seed: int


class CalibrationWords(TypedDict, total=False):
    """Holds the arguments that say on which images INT8 is based, and how its scales are found."""

    images: AnyPath  # without labels
    dataset: str  # a labelled data set instead, below `root`
    root: AnyPath
    split: str
    mapping: AnyPath
    recipe: str  # a shipped recipe's name, or a .yaml
    scales: AnyPath  # a calibration cache or a scales.json: images only judge
    count: int
    seed: int
    method: str
    percentile: float
    equalise: str
    probes: int
    max_drop: float


def as_any_model(model: AnyPath) -> str:
    """Take a path, or the address of a model on a server."""
    return model if isinstance(model, str) and "://" in model else str(as_path(model, "model"))


PATHS = ("images", "root", "mapping", "scales")


def silent(step: str, share: float | None = None) -> None:
    """Show no progress."""


def quantize(
    model: AnyPath,
    *,
    fp16: bool = False,
    card: str | None = None,
    cache_for: str | None = None,
    sensitivity: bool = False,
    size: str | Size | None = None,
    output: AnyPath = ".",
    progress: Callable[[str], None] = silent,
    **calibration: Unpack[CalibrationWords],
) -> Quantised:
    """Write a graph in INT8, calibrated and judged on `images` or on a labelled data set; `size` is one of several."""
    from segdeploy.convert.int8.quantize import quantize as quantise_graph
    from segdeploy.convert.int8.request import request_for
    from segdeploy.model.card import read_card

    path = as_path(model, "model")
    options = options_of_words(calibration)
    with request_for(options, path, as_optional_size(size, "size")) as request:
        request = replace(
            request,
            card=read_card(card) if card else None,
            fp16=fp16,
            cache_for=cache_for,
            sensitivity=sensitivity,
        )
        return quantise_graph(path, request, output=as_path(output, "output"), progress=progress)


def build_engine(
    model: AnyPath,
    *,
    fp16: bool = False,
    int8: bool = False,
    runtime: str | None = None,
    batch: str | None = None,
    target: str | None = None,
    workspace_gib: float | None = None,
    timing_cache: AnyPath | None = None,
    hardware_compatible: bool = False,
    version_compatible: bool = False,
    dla: int | None = None,
    optimization_level: int | None = None,
    msda: str | None = None,
    card: str | None = None,
    output: AnyPath = ".",
    progress: Callable[..., None] = silent,
    **calibration: Unpack[CalibrationWords],
) -> Deployed:
    """Build an engine from a graph, after writing INT8 or FP16 into it if asked for.

    `batch` is MIN:OPT:MAX for a graph with an open batch, `target` compute capabilities as in "sm_86,sm_89".
    """
    from segdeploy.convert.build_engine import DeployRequest, build_proven
    from segdeploy.convert.engine.request import EngineRequest, parse_targets
    from segdeploy.convert.int8.request import request_for
    from segdeploy.model.engine import Profile

    path = as_path(model, "model")
    engine = EngineRequest(
        fp16=fp16,
        int8=int8,
        profile=Profile.parse(batch) if batch else None,
        targets=parse_targets(target) if target else (),
        workspace_gib=workspace_gib,
        timing_cache=as_optional_path(timing_cache, "timing_cache"),
        hardware_compatible=hardware_compatible,
        version_compatible=version_compatible,
        dla=dla,
        optimization_level=optimization_level,
        msda=msda,
        card=card,
    )
    options = options_of_words(calibration)
    with request_for(options, path) if options.has_source else nullcontext() as quantisation:
        request = DeployRequest(engine, runtime, quantisation)
        return build_proven(path, request, output=as_path(output, "output"), progress=progress)


def options_of_words(words: CalibrationWords) -> CalibrationOptions:
    from segdeploy.convert.int8.options import CalibrationOptions

    known = CalibrationWords.__annotations__
    for name in words:
        if name not in known:
            raise RequestError(f"{name} is not an argument here; known: {', '.join(known)}")
    paths = {name: as_path(words[name], name) for name in PATHS if words.get(name) is not None}  # type: ignore[literal-required]
    return CalibrationOptions(**(words | paths))  # type: ignore[arg-type]


def evaluate(
    model: AnyPath,
    *,
    dataset: str,
    root: AnyPath,
    split: str | None = None,
    mapping: AnyPath | None = None,
    limit: int | None = None,
    workers: int = 2,
    card: str | None = None,
    provider: str | None = None,
    precision: str | None = None,
    fit: str = "stretch",
    resize: str | None = None,
    windows: bool = False,
    stride: str | Size | None = None,
    frame: str | Size | None = None,
    scales: Iterable[float] = (),
    flip: bool = False,
    size: str | Size | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score a graph or an engine over a labelled data set, as papers report it; `size` is one of its several."""
    from segdeploy.assess.evaluate.evaluate import evaluate as score
    from segdeploy.assess.evaluate.modes import Mode
    from segdeploy.datasets.layouts import open_dataset
    from segdeploy.model.card import read_card
    from segdeploy.prove.opening import open_session

    mode = Mode(
        fit,
        resize,
        windows,
        as_optional_size(stride, "stride"),
        as_optional_size(frame, "frame"),
        tuple(scales),
        flip,
    )
    labelled = open_dataset(dataset, as_path(root, "root"), split, as_optional_path(mapping, "mapping"))
    described, chosen = read_card(card) if card else None, as_optional_size(size, "size")
    opened = open_session(
        as_any_model(model), provider=provider, card=described, precision=precision, size=chosen
    )
    with opened as session:
        return score(
            mode.predictor(session),
            labelled.limited(limit),
            session.signature.labels,
            workers=workers,
            progress=progress,
        )


def measure(
    model: AnyPath,
    *,
    batch: int | None = None,
    duration_s: float = 3.0,
    warm_up_ms: float = 200.0,
    threads: int | None = None,
    provider: str | None = None,
    precision: str | None = None,
    transfers: bool | None = None,
    streams: int = 1,
    size: str | Size | None = None,
) -> Measurement:
    """Time a graph, an engine or a checkpoint as trtexec would; `batch` and `size` None take the model's own."""
    from segdeploy.assess.bench.measure import measure as time_session
    from segdeploy.assess.bench.measure import usual_batches
    from segdeploy.assess.bench.models import ModelOptions, open_model
    from segdeploy.assess.bench.modes import plan_measurement

    plan = plan_measurement(
        transfers=transfers, streams=streams, warm_up_ms=warm_up_ms, duration_s=duration_s
    )
    asked = as_optional_size(size, "size")
    options = ModelOptions(threads, provider, plan.modes.cuda_graph, precision, size=asked)
    opened = open_model(as_any_model(model), options)
    with opened.session as session:
        return time_session(session, batch or usual_batches(session)[0], plan)


def render_deepstream(
    model: AnyPath,
    *,
    output: AnyPath,
    deepstream: str = USUAL,
    network_type: int | None = None,
    streams: int = 1,
    parser: str | None = None,
    precision: str | None = None,
    card: str | None = None,
    int8_cache: AnyPath | None = None,
    dla: int | None = None,
    triton: str | None = None,
) -> Rendered:
    """Write a folder that DeepStream runs: nvinfer's configuration, labels, the app's and Triton's files."""
    from segdeploy.run.address import ModelAddress
    from segdeploy.serve.deepstream.render import render
    from segdeploy.serve.deepstream.request import RenderRequest

    cache = as_optional_path(int8_cache, "int8_cache")
    request = RenderRequest(
        as_path(model, "model"), deepstream, network_type, streams, parser, precision, card, cache, dla,
        ModelAddress.parse(triton) if triton else None,
    )  # fmt: skip
    return render(request, as_path(output, "output"))


def render_deepstream_app(
    model: AnyPath,
    *,
    source: str | Sequence[str],
    output: AnyPath,
    deepstream: str | None = None,
    sink: str = "fake",
    publish: str | None = None,
    broker: str | None = None,
    topic: str | None = None,
    muxer: str | Size | None = None,
    precision: str | None = None,
    int8_cache: AnyPath | None = None,
    triton: str | None = None,
) -> Rendered:
    """Write an application for several streams and all that it needs; `source` is one address, or one for each."""
    from segdeploy.run.address import ModelAddress
    from segdeploy.serve.deepstream.app.folder import render_app
    from segdeploy.serve.deepstream.app.request import MUXER, TOPIC, USUAL_FOR_APPS, AppRequest

    request = AppRequest(
        as_path(model, "model"),
        (source,) if isinstance(source, str) else tuple(source),
        deepstream or USUAL_FOR_APPS,
        sink,
        publish,
        broker,
        TOPIC if topic is None else topic,
        as_optional_size(muxer, "muxer") or MUXER,
        precision,
        as_optional_path(int8_cache, "int8_cache"),
        ModelAddress.parse(triton) if triton else None,
    )
    return render_app(request, as_path(output, "output"))


def finetune(
    checkpoint: AnyPath,
    *,
    dataset: str,
    root: AnyPath,
    output: AnyPath,
    progress: Callable[[str], None] = silent,
    **training: Unpack[TrainingWords],
) -> Finetuned:
    """Teach a checkpoint the classes of a labelled data set; the folder `output` is what `export` takes."""
    from segdeploy.train.finetune import finetune as train

    request = training_request(dataset, root, training)
    return train(str(checkpoint), request, output=as_path(output, "output"), progress=progress)


def distil(
    teacher: AnyPath,
    student: AnyPath,
    *,
    dataset: str,
    root: AnyPath,
    output: AnyPath,
    unlabelled: AnyPath | None = None,  # a folder of images that the teacher alone answers for
    progress: Callable[[str], None] = silent,
    **training: Unpack[TrainingWords],
) -> Finetuned:
    """Do as `finetune` with the checkpoint `student`, and draw its answer and its last map to the teacher's."""
    from segdeploy.picture.image import find_images
    from segdeploy.train.distil import distil as train

    images = find_images(as_path(unlabelled, "unlabelled")) if unlabelled else ()
    request = replace(training_request(dataset, root, training), unlabelled=tuple(images))
    return train(str(teacher), str(student), request, output=as_path(output, "output"), progress=progress)


def training_request(dataset: str, root: AnyPath, words: TrainingWords) -> TrainingRequest:
    from segdeploy.train.finetune import TrainingRequest
    from segdeploy.train.material import learnt_and_reported
    from segdeploy.train.recipe import WORDS
    from segdeploy.train.recipe_file import read_training_recipe

    unknown = sorted(set(words) - set(TrainingWords.__annotations__))
    if unknown:
        raise RequestError(
            f"{unknown[0]!r} is no argument of a training; known: {', '.join(TrainingWords.__annotations__)}"
        )
    learnt, reported = learnt_and_reported(
        dataset, as_path(root, "root"), as_optional_path(words.get("mapping"), "mapping"), words.get("split"),
        words.get("report_split"), as_optional_path(words.get("report_root"), "report_root"),
    )  # fmt: skip
    parts = {name: value for name, value in words.items() if name in WORDS}
    recipe = read_training_recipe(as_optional_path(words.get("recipe"), "recipe"), parts)
    return TrainingRequest(
        learnt, reported, recipe, as_optional_size(words.get("size"), "size"), words.get("card"),
        words.get("watch_every"), words.get("device"), words.get("threads", 2),
    )  # fmt: skip
