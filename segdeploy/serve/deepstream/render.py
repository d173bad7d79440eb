"""A graph of ours as a folder that DeepStream runs: nvinfer's configuration, labels, the app's and Triton's files.

Everything is rendered from the graph's own signature, so that what nvinfer computes before and after the network is
what the graph was proven with. The folder can be copied: the graph and all it needs are inside, and paths are relative.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segdeploy import files
from segdeploy.errors import DeepStreamError
from segdeploy.model.record import record_path
from segdeploy.serve import manifest
from segdeploy.serve.deepstream.app_files import app_files, colours, triton_files
from segdeploy.serve.deepstream.config import Line, write_txt
from segdeploy.serve.deepstream.document import as_yml, read_txt
from segdeploy.serve.deepstream.parsers import OUR_PARSER, TAO_PARSER
from segdeploy.serve.deepstream.picture import PICTURE, picture_of
from segdeploy.serve.deepstream.plan import OUR_LIBRARY, TAO_LIBRARY, Plan, make_plan
from segdeploy.serve.deepstream.readme import readme
from segdeploy.serve.deepstream.reported import reported
from segdeploy.serve.deepstream.request import RenderRequest
from segdeploy.serve.deepstream.served import served_texts
from segdeploy.serve.manifest import write_folder
from segdeploy.shipped import folder
from segdeploy.version import __version__


@dataclass(frozen=True)
class Rendered:
    paths: list[Path]  # in the order in which a reader looks at them
    warnings: list[str]

    def __str__(self) -> str:
        return "\n".join([*map(str, self.paths), *(f"warning: {text}" for text in self.warnings)])


def render(request: RenderRequest, output: Path) -> Rendered:
    """Write the folder, all of it or nothing; what lies there already is replaced where segdeploy wrote it."""
    plan = make_plan(request)
    contents = contents_of(plan)
    with files.folders_made(output), files.locked(output / manifest.NAME):
        write_folder(output, contents)
    return Rendered([output / name for name in (*contents, manifest.NAME)], reported(plan))


def contents_of(plan: Plan) -> dict[str, bytes | Path]:
    """Give each file of the folder by its place: its bytes, or the file that it is a copy of."""
    copied: list[tuple[str, Path]] = []
    if plan.parser == "segdeploy":
        sources = folder("deepstream") / "parser"
        copied = [(f"parser/{name}", sources / name) for name in plan.parser_files]
    picture = {PICTURE: picture_of(plan.graph.signature.labels)}
    if plan.is_served:
        return put_together(served_texts(plan), picture, copied)
    model = plan.request.model
    written = nvinfer_config(plan)
    texts = {
        "README.md": readme(plan),
        "nvinfer_config.txt": written,
        **({"nvinfer_config.yml": as_yml(read_txt(written)).text} if plan.release.reads_yml else {}),
        "labels.txt": "".join(f"{name}\n" for name in plan.graph.signature.labels.names),
        "colours.csv": colours(plan),
        **app_files(plan),
        **triton_files(plan),
    }
    copied.append((model.name, model))
    copied += [(str(path.relative_to(model.parent)), path) for path in plan.weights]
    if plan.record:
        copied.append((record_path(model).name, record_path(model)))
    if plan.cache:
        copied.append((plan.cache.name, plan.cache))
    return put_together(texts, picture, copied)


def put_together(
    texts: dict[str, str], made: dict[str, bytes], copied: list[tuple[str, Path]]
) -> dict[str, bytes | Path]:
    """Refuse two files of one name."""
    contents: dict[str, bytes | Path] = {
        **{name: text.encode() for name, text in texts.items()},
        **made,
    }
    for name, source in copied:
        if name in contents or name == manifest.NAME:
            raise DeepStreamError(
                f"{source} would be {name} in the folder, and so would another file; give it another name"
            )
        contents[name] = source
    return contents


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
        Line("network-mode", plan.network_mode, "0 FP32, 1 INT8, 2 FP16"),
    ]
    if plan.strongly_typed:
        lines.append(
            Line("strongly-typed", True, f"its precision, {plan.graph.precision.narrowest}, is in the graph")
        )
    if plan.cache:
        lines.append(Line("int8-calib-file", plan.cache.name))
    if request.dla is not None:
        lines += [Line("enable-dla", True), Line("use-dla-core", request.dla)]
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
        Line("network-type", plan.network_type, "2 semantic segmentation, 100 other"),
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
