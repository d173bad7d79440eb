"""A graph of ours as a folder that DeepStream runs: nvinfer's configuration, labels, the app's and Triton's files.

Everything is rendered from the graph's own signature, so that what nvinfer computes before and after the network is what the
graph was proven with. The folder can be copied: the graph and all it needs are inside, and paths are relative.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template

from segdeploy import __version__, files
from segdeploy.deepstream.config import NETWORK_MODES, Line, engine_name, write_txt
from segdeploy.deepstream.document import as_yml, read_txt
from segdeploy.deepstream.keys import demand_version, is_before
from segdeploy.deepstream.values import write_value
from segdeploy.errors import DeepStreamError
from segdeploy.graph.facts import GraphFacts, read_facts
from segdeploy.record import ArtifactRecord, read_record, record_path
from segdeploy.shipped import folder
from segdeploy.signature import describe

SDK = "/opt/nvidia/deepstream/deepstream"
SAMPLE = f"file://{SDK}/samples/streams/sample_720p.mp4"
TAO_LIBRARY = (
    f"{SDK}/lib/libnvds_infercustomparser_tao.so"  # where `make install` of tao_apps' post_processor puts it
)
TAO_PARSER, OUR_PARSER = "NvDsInferParseCustomSegformerTAO", "NvDsInferParseSegdeploy"
OUR_LIBRARY = "parser/libsegdeploy_parser.so"
TAO_PARSER_SINCE = "8.0"  # tao_apps before it drew network-type 100 by itself
STRONGLY_TYPED_SINCE = "9.1"
NETWORK_TYPES = (2, 100)
PARSERS = ("tao", "segdeploy")
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Request:
    model: Path
    deepstream: str = "8.0"  # what it reads every later version reads too
    network_type: int = 2
    streams: int = 1
    parser: str | None = None  # None: NVIDIA's where it takes the graph's output, else ours
    precision: str | None = None  # None: the graph's
    int8_cache: Path | None = None  # None: the one that `quantize --cache-for` left beside the graph


@dataclass(frozen=True)
class Plan:
    """A request with nothing left open."""

    request: Request
    facts: GraphFacts
    record: ArtifactRecord | None
    parser: str | None  # None: network-type 100
    network_mode: int
    strongly_typed: bool
    cache: Path | None

    @property
    def engine(self) -> str:
        precision = NETWORK_MODES[self.network_mode]
        return engine_name(self.request.model.name, self.request.streams, "gpu0", precision)

    @property
    def is_drawn_by_the_app(self) -> bool:
        return self.request.network_type == 2 or is_before(self.request.deepstream, TAO_PARSER_SINCE)


def render(request: Request, output: Path) -> list[Path]:
    """Writes the folder; what it holds, in the order in which a reader looks at it."""
    plan = make_plan(request)
    files.make_folder(output)
    texts = {
        "README.md": readme(plan),
        "nvinfer_config.txt": (written := nvinfer_config(plan)),
        "nvinfer_config.yml": as_yml(read_txt(written)).text,
        "labels.txt": "".join(f"{name}\n" for name in plan.facts.signature.labels.names),
        "colours.csv": colours(plan),
        **app_files(plan),
        **triton_files(plan),
    }
    for name, text in texts.items():
        files.write_text(output / name, text)
    copied = {request.model.name: request.model}
    if plan.record:
        copied[record_path(request.model).name] = record_path(request.model)
    if plan.cache:
        copied[plan.cache.name] = plan.cache
    if plan.parser == "segdeploy":
        sources = folder("deepstream") / "parser"
        copied |= {f"parser/{name}": sources / name for name in ("segdeploy_parser.cpp", "Makefile")}
    for name, source in copied.items():
        copy(source, output / name)
    return [output / name for name in (*texts, *copied)]


def copy(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    with files.replacing(target) as part:
        shutil.copyfile(source, part)


# ---- what is to be written -------------------------------------------------------------------------------------


def make_plan(request: Request) -> Plan:
    demand_version(request.deepstream)
    facts = read_facts(request.model)
    signature, name = facts.signature, request.model.name
    if signature.interface == "frames":
        raise DeepStreamError(
            f"{name} takes {describe(signature.input)}, and nvinfer feeds float32 N×3×H×W; export the checkpoint with"
            " --interface nvinfer"
        )
    if len(set(signature.scale)) > 1:
        raise DeepStreamError(
            f"{name} was not exported by segdeploy and wants a scale per channel; nvinfer has one, net-scale-factor."
            " Export its checkpoint with segdeploy, which folds the others into the graph"
        )
    if signature.card == "unknown":
        raise DeepStreamError(
            f"{name} was not exported by segdeploy and does not say its classes; export its checkpoint with:"
            " segdeploy export CHECKPOINT"
        )
    if request.network_type not in NETWORK_TYPES:
        raise DeepStreamError(f"network type {request.network_type} is not one of segmentation: 2 or 100")
    if request.streams < 1:
        raise DeepStreamError(f"{request.streams} streams cannot be run; expected 1 or more")
    if signature.batch not in (None, request.streams):
        raise DeepStreamError(
            f"{name} has a batch of {signature.batch}, and {request.streams} streams make batches of"
            f" {request.streams}; export it with --batch {request.streams}, or --batch dynamic"
        )
    mode, strongly_typed, cache = precision_of(request, facts)
    parser = choose_parser(request, facts) if request.network_type == 2 else None
    return Plan(request, facts, read_record(request.model), parser, mode, strongly_typed, cache)


def choose_parser(request: Request, facts: GraphFacts) -> str:
    takes_output = facts.signature.interface == "nvinfer"
    has_tao = not is_before(request.deepstream, TAO_PARSER_SINCE)
    parser = request.parser or ("tao" if takes_output and has_tao else "segdeploy")
    if parser not in PARSERS:
        raise DeepStreamError(f"no parser is called {parser!r}; known: {', '.join(PARSERS)}")
    if parser == "tao" and not takes_output:
        raise DeepStreamError(
            f"NVIDIA's parser takes one output 'output' int64, {request.model.name} has"
            f" {describe(facts.signature.output)}; use --parser segdeploy, or export with --interface nvinfer"
        )
    if parser == "tao" and not has_tao:
        raise DeepStreamError(
            f"NVIDIA's parser came with DeepStream {TAO_PARSER_SINCE}; for {request.deepstream} use --parser segdeploy,"
            " or --network-type 100, which ds-tao-segmentation of that version draws by itself"
        )
    return parser


def precision_of(request: Request, facts: GraphFacts) -> tuple[int, bool, Path | None]:
    """network-mode, strongly-typed, and the calibration cache.

    A typed graph is taken as it is from 9.1 on, which has `strongly-typed`, and then network-mode has to be 0: the flags
    that 1 and 2 set are refused beside it. Before, INT8 is on only where a cache is read, whatever the graph says.
    """
    own, asked = facts.precision, request.precision or facts.precision
    if asked not in PRECISIONS:
        raise DeepStreamError(f"{asked!r} is not a precision; known: {', '.join(PRECISIONS)}")
    if facts.is_typed and asked != own:
        raise DeepStreamError(
            f"{request.model.name} is an {own} graph and {asked} was asked for; take the FP32 graph that it was made of"
        )
    if facts.is_typed and not is_before(request.deepstream, STRONGLY_TYPED_SINCE):
        return 0, True, None
    if asked != "int8":
        return (2 if asked == "fp16" else 0), False, None
    cache = request.int8_cache or beside(request.model)
    if not cache.is_file():
        raise DeepStreamError(
            f"there is no calibration cache {cache}, and without one nvinfer of DeepStream {request.deepstream} builds"
            " FP16 for INT8; make it with: segdeploy quantize … --cache-for VERSION_OF_TENSORRT, or name it with"
            " --int8-cache"
        )
    return (3 if facts.has_fp16 else 1), False, cache


def beside(model: Path) -> Path:
    stem = model.stem.removesuffix(".fp16").removesuffix(".int8")
    return model.with_name(f"{stem}.calib")


def nvinfer_config(plan: Plan) -> str:
    request, signature = plan.request, plan.facts.signature
    lines = [
        Line("gpu-id", 0),
        Line("onnx-file", request.model.name),
        Line(
            "model-engine-file", plan.engine, "the name under which nvinfer writes the engine that it builds"
        ),
        Line("labelfile-path", "labels.txt"),
        Line("batch-size", request.streams, "one frame of each stream"),
        Line("network-mode", plan.network_mode, "0 FP32, 1 INT8, 2 FP16, 3 INT8 and FP16"),
    ]
    if plan.strongly_typed:
        lines.append(Line("strongly-typed", True, f"its precision, {plan.facts.precision}, is in the graph"))
    if plan.cache:
        lines.append(Line("int8-calib-file", plan.cache.name))
    lines += [
        Line("infer-dims", (3, signature.size.height, signature.size.width)),
        Line("model-color-format", 0, "RGB"),
        Line("net-scale-factor", signature.scale[0], "scale * (x - offset)"),
        Line("offsets", signature.mean),
        Line("maintain-aspect-ratio", False, "a mask is stretched over the whole frame"),
        Line("scaling-filter", 1, "bilinear; unset it is nearest neighbour"),
        Line("scaling-compute-hw", 1, "GPU"),
        Line("process-mode", 1),
        Line("interval", 0, "batches left out between two"),
        Line("gie-unique-id", 1),
        Line("cluster-mode", 2),
        Line("network-type", request.network_type, "2 semantic segmentation, 100 other"),
        Line("num-detected-classes", signature.classes),
        Line("segmentation-output-order", 1),
    ]
    if plan.parser is None:
        lines.append(Line("output-tensor-meta", True, "the output as it is, for who asks for it"))
    else:
        ours = plan.parser == "segdeploy"
        lines += [
            Line("parse-segmentation-func-name", OUR_PARSER if ours else TAO_PARSER),
            Line("custom-lib-path", OUR_LIBRARY if ours else TAO_LIBRARY),
        ]
    head = [
        f"for DeepStream {request.deepstream}",
        f"{request.model.name}, rendered by segdeploy {__version__}",
    ]
    return write_txt(head, lines)


# ---- files around it -------------------------------------------------------------------------------------------


def filled(template: str, **values: object) -> str:
    text = (folder("deepstream") / "templates" / f"{template}.template").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def colours(plan: Plan) -> str:
    labels = plan.facts.signature.labels
    rows = [
        f"{index},{name},{red},{green},{blue}\n"
        for index, (name, (red, green, blue)) in enumerate(zip(labels.names, labels.colours, strict=True))
    ]
    return "id,name,red,green,blue\n" + "".join(rows)


def app_files(plan: Plan) -> dict[str, str]:
    if not plan.is_drawn_by_the_app:
        return {}
    size, streams = plan.facts.signature.size, plan.request.streams
    seen = (
        "# ds-tao-segmentation app.yml reads its copy of these two here, relative to where it is started.\nproperty:\n"
        f"  network-type: {plan.request.network_type}\n  num-detected-classes: {plan.facts.signature.classes}\n"
    )
    app = filled(
        "app.yml",
        version=plan.request.deepstream,
        sources=";".join([SAMPLE] * streams),
        streams=streams,
        width=size.width,
        height=size.height,
    )
    return {"app.yml": app, "configs/nvinfer_config.yml": seen}


def triton_files(plan: Plan) -> dict[str, str]:
    signature, request = plan.facts.signature, plan.request
    name = signature.card
    library = ""
    if plan.parser:
        function = OUR_PARSER if plan.parser == "segdeploy" else TAO_PARSER
        path = f"../{OUR_LIBRARY}" if plan.parser == "segdeploy" else TAO_LIBRARY
        library = f'\n  custom_lib {{\n    path: "{path}"\n  }}'
        postprocess = (
            "segmentation {\n"
            f"      num_segmentation_classes: {signature.classes}\n"
            f'      custom_parse_segmentation_func: "{function}"\n    }}'
        )
    else:
        postprocess = "other {}"
    server = filled(
        "nvinferserver_config.txt",
        version=request.deepstream,
        name=name,
        batch=request.streams,
        input=signature.input.name,
        scale=repr(signature.scale[0]),
        offsets=", ".join(write_value(offset, "txt") for offset in signature.mean),
        postprocess=postprocess,
        library=library,
        output_control="" if plan.parser else "\noutput_control {\n  output_tensor_meta: true\n}",
    )
    repository = filled(
        "config.pbtxt",
        name=name,
        batch=request.streams,
        engine=plan.engine,
        input=signature.input.name,
        output=signature.output.name,
        output_type="TYPE_INT64" if signature.interface == "nvinfer" else "TYPE_FP32",
        output_dims=", ".join(map(str, signature.output.shape[1:])),
        height=signature.size.height,
        width=signature.size.width,
    )
    return {"triton/nvinferserver_config.txt": server, f"triton/models/{name}/config.pbtxt": repository}


def readme(plan: Plan) -> str:
    signature, request = plan.facts.signature, plan.request
    more = []
    if plan.is_drawn_by_the_app:
        more.append(
            "| app.yml, configs/ | ds-tao-segmentation's own configuration, and what it looks up beside it |"
        )
    more.append("| triton/ | the same for nvinferserver |")
    if plan.parser == "segdeploy":
        more.append("| parser/ | the output parser's source and Makefile |")
    if plan.cache:
        more.append(f"| {plan.cache.name} | TensorRT's calibration cache |")
    return filled(
        "README.md",
        model=request.model.name,
        version=request.deepstream,
        segdeploy=__version__,
        **{"except": "but the SDK's parser" if plan.parser == "tao" else "in it"},
        classes=signature.classes,
        more="\n".join(more) + "\n",
        commands=commands(plan),
        engine=plan.engine,
        build_engine=trtexec(plan),
        agreement=agreement(plan),
        precision_words=precision_words(plan),
        size=signature.size,
    )


def commands(plan: Plan) -> str:
    size = plan.facts.signature.size
    lines = []
    if plan.parser == "segdeploy":
        lines += ["    make -C parser          # once, on that machine"]
    if plan.parser == "tao":
        lines += [
            f"    # NVIDIA's parser: `make install` in post_processor/ of tao_apps puts it at\n    # {TAO_LIBRARY}"
        ]
    sources = " ".join([f"-i {SAMPLE}"] * plan.request.streams)
    if plan.is_drawn_by_the_app:
        lines += [
            f"    ds-tao-segmentation -c nvinfer_config.txt {sources}"
            f" -b {plan.request.streams} -w {size.width} -e {size.height} -o -a 0.5",
            "    ds-tao-segmentation app.yml",
        ]
    else:
        lines += [
            f"    # ds-tao-segmentation of DeepStream {plan.request.deepstream} draws network-type 2 only: render that, or read",
            "    # NvDsInferTensorMeta in your own application. This shows that the configuration runs:",
            f"    gst-launch-1.0 uridecodebin uri={SAMPLE} ! m.sink_0 nvstreammux name=m batch-size={plan.request.streams}"
            " width=1280 height=720 ! nvinfer config-file-path=nvinfer_config.txt ! fakesink",
        ]
    return "\n".join(lines) + "\n"


def trtexec(plan: Plan) -> str:
    signature, request = plan.facts.signature, plan.request
    flags = ""
    if plan.strongly_typed:
        flags = " --stronglyTyped"
    elif plan.network_mode:
        flags = {1: " --int8", 2: " --fp16", 3: " --int8 --fp16"}[plan.network_mode]
        flags += f" --calib={plan.cache.name}" if plan.cache else ""
    if signature.batch is None:
        shape = f"{signature.input.name}:{request.streams}x3x{signature.size}"
        flags += f" --minShapes={signature.input.name}:1x3x{signature.size} --optShapes={shape} --maxShapes={shape}"
    folder_ = f"triton/models/{signature.card}/1"
    return f"mkdir -p {folder_} && trtexec --onnx={request.model.name} --saveEngine={folder_}/{plan.engine}{flags}"


def agreement(plan: Plan) -> str:
    if plan.record is None:
        return "There is no record beside the graph: how well it agrees with its checkpoint is not known."
    seen = plan.record.agreement
    return f"The graph's record: {seen['pixel_agreement']:.4%} of {seen['pixels']:,} pixels equal to {seen['with']}."


def precision_words(plan: Plan) -> str:
    precision = NETWORK_MODES[plan.network_mode]
    if plan.facts.is_typed or precision == "fp32":
        return ""
    return (
        f"The graph is FP32 and network-mode {plan.network_mode} lets TensorRT choose where {precision.upper()} is used: what that"
        " costs was not measured. A graph with its precision inside is proven by segdeploy (`export --fp16`, `quantize`)."
    )
