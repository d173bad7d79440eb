"""A graph of ours as a folder that DeepStream runs: nvinfer's configuration, labels, the app's and Triton's files.

Everything is rendered from the graph's own signature, so that what nvinfer computes before and after the network is
what the graph was proven with. The folder can be copied: the graph and all it needs are inside, and paths are relative.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from segdeploy import files
from segdeploy.model.record import record_path
from segdeploy.serve.deepstream.app_files import app_files, colours, readme, reported, triton_files
from segdeploy.serve.deepstream.config import Line, write_txt
from segdeploy.serve.deepstream.document import as_yml, read_txt
from segdeploy.serve.deepstream.plan import (
    OUR_LIBRARY,
    OUR_PARSER,
    TAO_LIBRARY,
    TAO_PARSER,
    Plan,
    make_plan,
)
from segdeploy.serve.deepstream.request import RenderRequest
from segdeploy.shipped import folder
from segdeploy.version import __version__


@dataclass(frozen=True)
class Rendered:
    paths: list[Path]  # in the order in which a reader looks at them
    warnings: list[str]

    def __str__(self) -> str:
        return "\n".join([*map(str, self.paths), *(f"warning: {text}" for text in self.warnings)])


def render(request: RenderRequest, output: Path) -> Rendered:
    """Writes the folder."""
    plan = make_plan(request)
    files.make_folder(output)
    texts = {
        "README.md": readme(plan),
        "nvinfer_config.txt": (written := nvinfer_config(plan)),
        "nvinfer_config.yml": as_yml(read_txt(written)).text,
        "labels.txt": "".join(f"{name}\n" for name in plan.graph.signature.labels.names),
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
    return Rendered([output / name for name in (*texts, *copied)], reported(plan))


def copy(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        return
    with files.replacing(target) as part:
        shutil.copyfile(source, part)


def nvinfer_config(plan: Plan) -> str:
    request, signature = plan.request, plan.graph.signature
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
        lines.append(
            Line("strongly-typed", True, f"its precision, {plan.graph.precision.narrowest}, is in the graph")
        )
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
