from __future__ import annotations

import argparse
from pathlib import Path

from segdeploy.cli.arguments import FIT_CHOICES, MOST_BATCH, MOST_THREADS, add_json, between, list_between
from segdeploy.cli.model_argument import add_model
from segdeploy.cli.printing import print_lines, print_message, print_next, put_json
from segdeploy.serve.triton.request import BACKENDS, USUAL_BATCH


def describe(parser: argparse.ArgumentParser) -> None:
    add_model(
        parser,
        "an .onnx of the interface frames, or an .engine",
        dest="models",
        several=True,
        interface="frames",
    )
    parser.add_argument(
        "-o", "--output", metavar="REPOSITORY", type=Path, required=True, help="the folder to write"
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="Triton's, by default the one of the model's kind; python runs segdeploy's own session in the server",
    )
    parser.add_argument(
        "--versions-of",
        metavar="NAME",
        help="make the models versions 1, 2, … of one model of this name",
    )
    parser.add_argument(
        "--policy",
        default="all",
        metavar="VERSIONS",
        help="which versions are served: all (default), latest:N, or numbers as in 1,3",
    )
    parser.add_argument("--card", metavar="NAME", help="a card or .yaml that describes a foreign graph")
    add_json(parser)
    describe_batching(parser.add_argument_group("how requests are merged"))
    describe_placement(parser.add_argument_group("where it computes"))
    describe_image_models(parser.add_argument_group("models for image files, beside each model"))


def describe_batching(batching: argparse._ActionsContainer) -> None:
    batching.add_argument(
        "--batch",
        type=between(1, MOST_BATCH),
        metavar="N",
        help=f"the largest batch (default: the engine's, else {USUAL_BATCH})",
    )
    batching.add_argument(
        "--delay",
        type=between(0, 10_000, whole=False),
        metavar="MS",
        default=2.0,
        help="milliseconds that a request may wait for others (default: 2)",
    )
    batching.add_argument(
        "--queue",
        type=between(1, 1_000_000),
        metavar="N",
        default=256,
        help="requests that may wait; more are refused, and clients come again (default: 256)",
    )


def describe_placement(placed: argparse._ActionsContainer) -> None:
    placed.add_argument(
        "--instances",
        type=between(1, 256),
        metavar="N",
        default=1,
        help="instances of each model, on each GPU (default: 1)",
    )
    placed.add_argument(
        "--gpus",
        type=list_between(0, 255, whole=True, example="0,1"),
        metavar="LIST",
        default=(),
        help="as in 0,1 (default: all that the server has)",
    )
    placed.add_argument("--cpu", action="store_true", help="on the CPU, also where there is a GPU")
    placed.add_argument(
        "--threads",
        type=between(1, MOST_THREADS),
        metavar="N",
        help="CPU threads of an instance of the Python backend (default: all)",
    )


def describe_image_models(images: argparse._ActionsContainer) -> None:
    images.add_argument(
        "--jpeg",
        action="store_true",
        help="NAME_jpeg, an ensemble: an image file's bytes to labels at its size",
    )
    images.add_argument(
        "--areas",
        action="store_true",
        help="NAME_areas: to the share of each class and, if asked, COCO's run-length masks",
    )
    images.add_argument(
        "--fit",
        choices=FIT_CHOICES,
        default="stretch",
        help="how an image gets the model's size (default: stretch)",
    )


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.serve.triton.repository import write_repository
    from segdeploy.serve.triton.request import TritonRequest

    request = TritonRequest(
        tuple(arguments.models),
        arguments.backend,
        arguments.card,
        arguments.versions_of,
        arguments.policy,
        arguments.batch,
        arguments.delay,
        arguments.queue,
        arguments.instances,
        arguments.gpus,
        arguments.cpu,
        arguments.threads,
        arguments.jpeg,
        arguments.areas,
        arguments.fit,
    )
    done = write_repository(request, arguments.output)
    if put_json(
        arguments.json, {"files": [*map(str, done.paths)], "models": done.models, "warnings": done.warnings}
    ):
        return 0
    print_lines(*done.paths)
    for warning in done.warnings:
        print_message(warning)
    print_next(
        f"start Triton on it ({arguments.output / 'README.md'}), then"
        f" segdeploy verify triton://localhost:8001/{done.models[0]}"
    )
    return 0
