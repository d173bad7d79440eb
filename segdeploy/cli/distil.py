from __future__ import annotations

import argparse
import functools

from segdeploy.cli.finetune import describe_training, trained_and_shown
from segdeploy.train.recipe import WORDS


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "teacher", metavar="TEACHER", help="a checkpoint, or an .onnx or .engine with --interface logits"
    )
    parser.add_argument("checkpoint", metavar="STUDENT", help="a checkpoint, as `export` takes it")
    describe_training(parser, WORDS)


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.train.distil import distil

    return trained_and_shown(arguments, functools.partial(distil, arguments.teacher, arguments.checkpoint))
