"""Writes the README of a rendered folder: for somebody with a machine and this folder, and nothing of NVIDIA's yet."""

from __future__ import annotations

from segdeploy.serve.deepstream.app_files import filled
from segdeploy.serve.deepstream.config import NETWORK_MODES
from segdeploy.serve.deepstream.nvinferserver import REPOSITORY, model_name
from segdeploy.serve.deepstream.parsers import OUR_PARSER, TAO_PARSER
from segdeploy.serve.deepstream.picture import PICTURE
from segdeploy.serve.deepstream.plan import SAMPLE, SDK, TAO_LIBRARY, Plan
from segdeploy.serve.deepstream.reported import MOST_COLOURS, reported
from segdeploy.shell import shell_word
from segdeploy.version import __version__

TAO_APPS = "https://github.com/NVIDIA-AI-IOT/deepstream_tao_apps"
OPEN_SDK = "https://github.com/NVIDIA/DeepStream"
CUDA_VERSION = (
    "export CUDA_VER=$(readlink -f /usr/local/cuda | sed 's/.*cuda-//')    # NVIDIA's Makefiles ask for it"
)


def readme(plan: Plan) -> str:
    signature, request = plan.graph.signature, plan.request
    return filled(
        "README.md",
        model=request.model.name,
        version=request.deepstream,
        segdeploy=__version__,
        **{"except": " but the SDK's parser" if plan.parser == "tao" else ""},
        classes=signature.classes,
        files="\n".join(f"| {name} | {what} |" for name, what in files_listed(plan)),
        machine=machine(plan),
        build="".join(f"    {line}\n" for line in build(plan)),
        commands="".join(f"    {line}\n" for line in commands(plan)),
        engine=plan.engine,
        seen=seen(plan),
        facts="\n".join(f"| {what} | {fact} |" for what, fact in facts(plan)),
        build_engine=trtexec(plan),
        serve=server_lines(plan),
        more=other_hardware(plan),
        agreement=agreement(plan),
        precision_words=precision_words(plan),
        reported="".join(f"\n{warning}\n" for warning in reported(plan)),
        size=signature.size,
    )


def files_listed(plan: Plan) -> list[tuple[str, str]]:
    """List the files with what each is, in the order in which they matter."""
    model = plan.request.model.name
    forms = "nvinfer_config.txt, nvinfer_config.yml" if plan.release.reads_yml else "nvinfer_config.txt"
    twice = "the configuration of nvinfer" + ", the same twice" * plan.release.reads_yml
    rows = [
        (forms, twice),
        (model, "the graph; its record beside it says what it was made from"),
        ("labels.txt", f"{plan.graph.signature.classes} classes in the order of their ids"),
        ("colours.csv", "their colours, for what you draw yourself: nvsegvisual has its own"),
        (PICTURE, "the classes in these colours, as in section 4"),
    ]
    if plan.is_drawn_by_the_app and plan.release.app.reads_app_yml:
        rows.append(
            ("app.yml, configs/", "ds-tao-segmentation's own configuration, and what it looks up beside it")
        )
    if plan.parser == "segdeploy":
        rows.append(("parser/", "the output parser's source and Makefile"))
    if plan.cache:
        rows.append((plan.cache.name, "TensorRT's calibration cache"))
    rows += [(path.name, "weights of the graph") for path in plan.weights]
    rows.append(("triton/", "the same for nvinferserver"))
    return [*rows, ("rendered.json", "what segdeploy wrote here: it replaces nothing else")]


def machine(plan: Plan) -> str:
    """Say how to get DeepStream: NVIDIA's container, which is the same command on every machine but for its image."""
    image = f"nvcr.io/nvidia/deepstream:{plan.release.image}"
    first = next(one for one in commands(plan) if not one.startswith("#")).partition("    ")[0]
    jetson = "with `--runtime nvidia` in the place of `--gpus all`"
    if "multiarch" not in plan.release.image:
        other = plan.release.image.replace("-devel", "-samples").replace("deepstream:", "deepstream-l4t:")
        jetson += (
            f" and the image `nvcr.io/nvidia/deepstream-l4t:{other}`, and with JetPack's compiler outside it"
        )
    return (
        f'    docker run -it --rm --gpus all --network host -v "$PWD":/model -w /model {image}\n'
        f"    {SDK}/user_additional_install.sh          # inside: decoders and encoders that NVIDIA may not ship\n\n"
        f"On a Jetson (JetPack {plan.release.jetpack}) the same {jetson}; or DeepStream on the machine itself."
        " A *samples* image has no compiler. The folder is mounted, so the engine that nvinfer builds in it stays, and"
        " what is cloned and built in it.\n"
        "As a service of docker compose, once section 2 is done:\n\n"
        f'    services:\n      segmentation:\n        image: {image}\n        volumes: [".:/model"]\n'
        "        working_dir: /model\n        network_mode: host\n        runtime: nvidia\n"
        f'        command: >-\n          bash -c "{SDK}/user_additional_install.sh;\n'
        f'          {for_compose(plan, first)}"\n'
    )


def for_compose(plan: Plan, command: str) -> str:
    """Write a command for compose, which reads a dollar as its own; the app is where it was built below."""
    path = f"PATH=$$PATH:/model/{app_sources(plan)[1]}/apps/tao_segmentation "
    return f"{path if plan.is_drawn_by_the_app else ''}{command}"


def app_sources(plan: Plan) -> tuple[str, str]:
    """Tell where NVIDIA's app comes from, and its folder in what is cloned."""
    if plan.release.app.is_in_the_sdk:
        return OPEN_SDK, "DeepStream/src/apps/tao_apps"
    return TAO_APPS, "deepstream_tao_apps"


def build(plan: Plan) -> list[str]:
    """Give the commands that compile what the folder needs there: our parser, NVIDIA's, and NVIDIA's app."""
    app = plan.release.app
    lines = ["make -C parser          # the output parser, against that machine's SDK"] * (
        plan.parser == "segdeploy"
    )
    if not (plan.is_drawn_by_the_app or plan.parser == "tao"):
        return lines or ["# nothing"]
    source, inside = app_sources(plan)
    lines += [
        f"GIT_LFS_SKIP_SMUDGE=1 git clone --depth 1 -b {app.branch} {source} {inside.split('/')[0]}",
        CUDA_VERSION,
    ]
    if plan.parser == "tao":
        lines += [
            f"# NVIDIA's parser, which has to lie at {TAO_LIBRARY}",
            *tao_parser_commands(plan, inside),
        ]
    if plan.is_drawn_by_the_app:
        lines += [
            f"make -C {inside}/apps/tao_segmentation          # NVIDIA's app; needs GStreamer's headers",
            f"export PATH=$PATH:$PWD/{inside}/apps/tao_segmentation",
        ]
    return lines


def tao_parser_commands(plan: Plan, inside: str) -> list[str]:
    """Only the Makefile of 9.0 and later has the target install."""
    folder = f"{inside}/post_processor"
    if plan.release.app.is_in_the_sdk:
        return [f"sudo make -C {folder} CUDA_VER=$CUDA_VER LIB_INSTALL_DIR={SDK}/lib install"]
    return [
        f"make -C {folder} CUDA_VER=$CUDA_VER",
        f"sudo cp {folder}/{TAO_LIBRARY.rpartition('/')[2]} {SDK}/lib/",
    ]


def commands(plan: Plan) -> list[str]:
    streams, size, app = plan.request.streams, plan.graph.signature.size, plan.release.app
    lines = []
    if plan.is_drawn_by_the_app:
        sources = " ".join([f"-i {SAMPLE}"] * streams)
        rest = " ".join(app.arguments(size.height, size.width))
        lines.append(f"ds-tao-segmentation -c nvinfer_config.txt {sources} -b {streams} {rest}".rstrip())
        if app.reads_app_yml:
            lines.append("ds-tao-segmentation app.yml")
    else:
        lines.append("# ds-tao-segmentation would draw nothing (see below). That nvinfer runs is shown by:")
    return [*lines, pipeline(plan, not plan.is_drawn_by_the_app)]


def pipeline(plan: Plan, is_only: bool) -> str:
    """Give the same without NVIDIA's app: elements of the SDK alone, drawn where nvinfer makes class maps."""
    size, streams = plan.graph.signature.size, plan.request.streams
    element = "nvinferserver" if plan.is_served else "nvinfer"
    infer = f"{element} config-file-path={element}_config.txt"
    mixer = f"nvstreammux name=m batch-size={streams} width=1280 height=720"
    source = f"gst-launch-1.0 uridecodebin uri={SAMPLE} ! m.sink_0 {mixer} ! {infer}"
    if plan.network_type != 2:
        return f"{source} ! fakesink" if is_only else f"{source} ! fakesink          # without the app"
    return (
        f"{source} ! nvsegvisual batch-size={streams} width={size.width} height={size.height} ! nvvideoconvert"
        " ! 'video/x-raw,format=I420' ! x264enc ! mp4mux ! filesink location=out.mp4          # without the app"
    )


def seen(plan: Plan) -> str:
    """Say what is to be expected on the screen, so that what is normal is not taken for a fault."""
    signature, app = plan.graph.signature, plan.release.app
    if not plan.is_drawn_by_the_app:
        return "Nothing is drawn: the pipeline runs to the end of the clip without an error. "
    words = (
        "out.mp4 with every pixel in its class's colour of nvsegvisual, which are not those of colours.csv"
    )
    if "o" in app.options:
        words += (
            f", over the picture. `-o -a 0.5` (orig_background in app.yml) leaves class 0,"
            f" *{signature.labels.names[0]}*, uncoloured: leave `-o -a 0.5` out, and it is drawn, without the picture"
        )
    if signature.classes > MOST_COLOURS:
        words += f". Its palette ends at id {MOST_COLOURS - 1}: what is drawn for later ids is chance"
    return (
        f"{words}. The app scales every stream to 1280x720 before nvinfer scales it to the network's {signature.size};"
        " replay does so with `--app ds-tao-segmentation`. "
    )


def facts(plan: Plan) -> list[tuple[str, str]]:
    """Tell what that version of DeepStream does with each decision in this folder."""
    app = plan.release.app
    parser = {"segdeploy": f"`{OUR_PARSER}` of parser/, for each frame", "tao": f"NVIDIA's `{TAO_PARSER}`"}
    read = "network-type 2: nvinfer makes a class map of it, with " + parser.get(plan.parser or "", "")
    precision = NETWORK_MODES[plan.network_mode].upper()
    if plan.strongly_typed:
        own = plan.graph.precision.narrowest.upper()
        precision = f"the graph's own types, {own} (strongly-typed=1; the engine's name says fp32)"
    draws = "nothing: an application of your own reads the tensor"
    if plan.is_drawn_by_the_app:
        draws = "the class map" if plan.network_type == 2 else "the class ids of the tensor, by itself"
    options = "knows `-o -a`" if "o" in app.options else "knows neither `-o -a`"
    options += (
        " and `-w -e`"
        if "w" in app.options
        else (" but not `-w -e`" if "o" in app.options else " nor `-w -e`")
    )
    takes = (
        "URIs, as in file:// and rtsp://" if app.takes_uris else "the plain path of one .h264 or .jpg, no URI"
    )
    return [
        ("TensorRT", " or ".join(plan.release.tensorrts) + " builds the engine"),
        (
            "output",
            read if plan.network_type == 2 else "network-type 100: nvinfer hands the tensor on as it is",
        ),
        ("precision", precision),
        ("batch", f"{plan.request.streams}, one frame of each stream; a lost stream makes it smaller"),
        ("ds-tao-segmentation draws", draws),
        ("its options", f"{options}; its sources are {takes}"),
        (
            "its own .yml",
            "read: app.yml" if app.reads_app_yml else "not rendered: it lacks the group segvisual",
        ),
    ]


def other_hardware(plan: Plan) -> str:
    """Say how to move to a part of the hardware: a DLA of a Jetson, a MIG slice of a server's GPU."""
    dla = (
        f"This folder runs on DLA core {plan.request.dla}; what a DLA does not have TensorRT runs on the GPU."
        if plan.request.dla is not None
        else "On a Jetson with a DLA (Xavier, AGX Orin, Orin NX): render an FP32 graph with `--dla 0 --precision fp16`."
    )
    return (
        f"{dla} Most of a transformer stays on the GPU.\n\nOn a MIG slice: start with `--gpus '\"device=MIG-…\"'` (the"
        " name from `nvidia-smi -L`) in the place of `--gpus all`; gpu-id stays 0, and the engine is built on the slice"
        " that runs it. A slice of an A100 or H100 has no encoder for out.mp4."
    )


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
    place = f"{REPOSITORY}/{model_name(request, signature)}/1"
    onnx, engine = (
        shell_word(f"--{flag}")
        for flag in (f"onnx={request.model.name}", f"saveEngine={place}/{plan.engine}")
    )
    return f"mkdir -p {place} && trtexec {onnx} {engine}{flags}"


def server_lines(plan: Plan) -> str:
    """Say how nvinferserver gets at the engine: in its own process, or on a server that has the same repository."""
    address = plan.request.triton
    start = f"tritonserver --model-repository={REPOSITORY}    # on {address.server}\n    " if address else ""
    return f"{start}# then nvinferserver with config-file-path=triton/nvinferserver_config.txt"


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
