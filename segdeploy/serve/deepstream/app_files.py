"""The files around nvinfer's configuration: the app's, Triton's, the colours, and the README with the commands."""

from __future__ import annotations

import csv
import io
from string import Template

from segdeploy.flavour import Version
from segdeploy.graph.known_bugs import WRONG_BATCHES, bug_of_sampling
from segdeploy.serve.deepstream.config import NETWORK_MODES
from segdeploy.serve.deepstream.plan import OUR_LIBRARY, OUR_PARSER, SAMPLE, TAO_LIBRARY, TAO_PARSER, Plan
from segdeploy.serve.deepstream.values import write_value
from segdeploy.shell import shell_word
from segdeploy.shipped import folder
from segdeploy.version import __version__


def filled(template: str, **values: object) -> str:
    text = (folder("deepstream") / "templates" / f"{template}.template").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def colours(plan: Plan) -> str:
    labels = plan.graph.signature.labels
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("id", "name", "red", "green", "blue"))
    for index, (name, colour) in enumerate(zip(labels.names, labels.colours, strict=True)):
        rows.writerow((index, name, *colour))
    return table.getvalue()


def app_files(plan: Plan) -> dict[str, str]:
    if not plan.is_drawn_by_the_app:
        return {}
    size, streams = plan.graph.signature.size, plan.request.streams
    seen = (
        "# ds-tao-segmentation app.yml reads its copy of these two here, relative to where it is started.\nproperty:\n"
        f"  network-type: {plan.request.network_type}\n  num-detected-classes: {plan.graph.signature.classes}\n"
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
    signature, request = plan.graph.signature, plan.request
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
    signature, request = plan.graph.signature, plan.request
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
    more += [f"| {path.name} | weights of the graph |" for path in plan.weights]
    more.append("| rendered.json | what segdeploy wrote here: it replaces nothing else |")
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
        reported="".join(f"\n{warning}\n" for warning in reported(plan)),
        size=signature.size,
    )


def reported(plan: Plan) -> list[str]:
    """Warn of what DeepStream's TensorRT is reported to compute wrongly in such a graph: nvinfer compares nothing."""
    request, graph = plan.request, plan.graph
    warnings = []
    for version in plan.release.tensorrts:
        bug = bug_of_sampling(Version.parse(version), graph.samples, graph.opset)
        way_round = " and builds sampling as gathers" if bug else ""
        if bug is None and request.streams > 1 and Version.parse(version) in WRONG_BATCHES:
            bug = (
                f"NVIDIA/TensorRT#4853 (SegFormer with a batch above 1, {WRONG_BATCHES})",
                "render it with --streams 1",
            )
        if bug is not None:
            warnings.append(
                f"DeepStream {request.deepstream} has a TensorRT {version} (on a workstation or on a Jetson) which is"
                f" reported to compute such a graph wrongly without a word: {bug[0]}. Instead {bug[1]}; or build"
                f" {plan.engine} on that machine with segdeploy build-engine, which compares it first{way_round}."
            )
    precision = NETWORK_MODES[plan.network_mode]
    if graph.counts and precision != "fp32":
        warnings.append(
            f"{graph.counts} nodes of {request.model.name} count places in a map, and nvinfer lets TensorRT choose what"
            f" they count in: FP16 ends at 2048. Build {plan.engine} on that machine with segdeploy build-engine, which"
            " keeps them in FP32; or render it with --precision fp32."
        )
    return warnings


def commands(plan: Plan) -> str:
    size = plan.graph.signature.size
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
            f"    # ds-tao-segmentation of DeepStream {plan.request.deepstream} draws network-type 2 only: render",
            "    # that, or read NvDsInferTensorMeta in an application of your own. Whether it runs is shown by:",
            f"    gst-launch-1.0 uridecodebin uri={SAMPLE} ! m.sink_0 nvstreammux name=m"
            f" batch-size={plan.request.streams} width=1280 height=720"
            " ! nvinfer config-file-path=nvinfer_config.txt ! fakesink",
        ]
    return "\n".join(lines) + "\n"


def trtexec(plan: Plan) -> str:
    signature, request = plan.graph.signature, plan.request
    flags = ""
    if plan.strongly_typed:
        flags = " --stronglyTyped"
    elif plan.network_mode:
        flags = {1: " --int8", 2: " --fp16", 3: " --int8 --fp16"}[plan.network_mode]
        flags += f" {shell_word(f'--calib={plan.cache.name}')}" if plan.cache else ""
    if signature.batch is None:
        for bound, images in (("min", 1), ("opt", request.streams), ("max", request.streams)):
            shape = f"--{bound}Shapes={signature.input.name}:{images}x3x{signature.size}"
            flags += f" {shell_word(shape)}"
    place = f"triton/models/{signature.card}/1"
    onnx, engine = (
        shell_word(f"--{flag}")
        for flag in (f"onnx={request.model.name}", f"saveEngine={place}/{plan.engine}")
    )
    return f"mkdir -p {place} && trtexec {onnx} {engine}{flags}"


def agreement(plan: Plan) -> str:
    if plan.record is None:
        return "There is no record beside the graph: how well it agrees with its checkpoint is not known."
    return f"The graph's record: {plan.record.agreement_in_words}."


def precision_words(plan: Plan) -> str:
    precision = NETWORK_MODES[plan.network_mode]
    if plan.graph.precision.is_typed or precision == "fp32":
        return ""
    return (
        f"The graph is FP32, and network-mode {plan.network_mode} lets TensorRT choose where it computes in"
        f" {precision.upper()}: what that costs was not measured. A graph with its precision inside is proven by"
        " segdeploy (`export --fp16`, `quantize`)."
    )
