from __future__ import annotations

import argparse

from segdeploy.cli.finetune import describe_training, request_from, show, tell_progress
from segdeploy.train.recipe import WORDS


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "teacher", metavar="TEACHER", help="a checkpoint, or an .onnx or .engine with --interface logits"
    )
    parser.add_argument("checkpoint", metavar="STUDENT", help="a checkpoint, as `export` takes it")
    describe_training(parser, WORDS)


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import steps
    from segdeploy.train.distil import distil

    request = request_from(arguments)
    with steps() as progress:
        done = distil(
            arguments.teacher,
            arguments.checkpoint,
            request,
            output=arguments.output,
            progress=progress,
            tell=lambda event: tell_progress(event, request),
        )
    show(done, arguments)
    return 0
