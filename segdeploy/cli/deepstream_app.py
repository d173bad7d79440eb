from __future__ import annotations

import argparse
from pathlib import Path

from segdeploy.cli.arguments import add_json, parse_size
from segdeploy.cli.model_argument import add_model
from segdeploy.cli.printing import print_lines, print_message, print_next, put_json
from segdeploy.run.address import EXAMPLE, ModelAddress
from segdeploy.serve.deepstream.app.request import (
    MUXER,
    PROTOCOLS,
    SINKS,
    TOPIC,
    USUAL_FOR_APPS,
    versions_with_apps,
)
from segdeploy.serve.deepstream.request import PRECISIONS
from segdeploy.shell import command_line


def add_app(app: argparse.ArgumentParser) -> None:
    """Describe `deepstream app`."""
    add_model(app, "an .onnx with a dynamic batch", chooses=False)
    app.add_argument(
        "--source",
        metavar="URI",
        action="append",
        required=True,
        help="a camera or a clip, as in rtsp://camera/stream or file:///clips/a.mp4; once for each",
    )
    app.add_argument(
        "--deepstream",
        choices=versions_with_apps(),
        default=USUAL_FOR_APPS,
        help=f"DeepStream's version (default: {USUAL_FOR_APPS})",
    )
    app.add_argument(
        "--sink", choices=SINKS, default="fake", help="where pictures go (default: fake, nowhere)"
    )
    app.add_argument(
        "--publish", choices=tuple(PROTOCOLS), help="send areas and masks to a broker (default: print them)"
    )
    app.add_argument("--broker", metavar="HOST[:PORT]", help="the broker of --publish")
    app.add_argument("--topic", default=TOPIC, help=f"its topic (default: {TOPIC})")
    app.add_argument(
        "--muxer",
        metavar="HxW",
        type=parse_size,
        default=MUXER,
        help=f"what each stream is scaled to before the batch (default: {MUXER})",
    )
    app.add_argument("--precision", choices=PRECISIONS, help="default: the graph's own")
    app.add_argument("--int8-cache", metavar="FILE", type=Path, help="TensorRT's calibration cache")
    add_triton(app)
    app.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="the folder to write")
    add_json(app)


def add_triton(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--triton",
        metavar="URL",
        type=ModelAddress.parse,
        help=f"let nvinferserver ask this model on a server, as in {EXAMPLE} (default: nvinfer on the box)",
    )


def execute_app(arguments: argparse.Namespace) -> int:
    from segdeploy.serve.deepstream.app.configuration import CONFIGURATION
    from segdeploy.serve.deepstream.app.folder import README, render_app
    from segdeploy.serve.deepstream.app.request import AppRequest

    request = AppRequest(
        arguments.model,
        tuple(arguments.source),
        arguments.deepstream,
        arguments.sink,
        arguments.publish,
        arguments.broker,
        arguments.topic,
        arguments.muxer,
        arguments.precision,
        arguments.int8_cache,
        arguments.triton,
    )
    rendered = render_app(request, arguments.output)
    if put_json(arguments.json, {"files": [*map(str, rendered.paths)], "warnings": rendered.warnings}):
        return 0
    print_lines(*rendered.paths)
    for warning in rendered.warnings:
        print_message(warning)
    lint = command_line("segdeploy", "deepstream", "lint", arguments.output / CONFIGURATION)
    print_next(f"{lint}; then read {arguments.output / README} on the box")
    return 0
