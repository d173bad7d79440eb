from __future__ import annotations

import argparse
import functools
from pathlib import Path

from segdeploy.cli.finetune import describe_training, trained_and_shown
from segdeploy.train.recipe import WORDS


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "teacher", metavar="TEACHER", help="a checkpoint, or an .onnx or .engine with --interface logits"
    )
    parser.add_argument("checkpoint", metavar="STUDENT", help="a checkpoint, as `export` takes it")
    describe_training(parser, WORDS)
    parser.add_argument(
        "--unlabelled",
        metavar="DIR",
        type=Path,
        help="images without labels: every second crop is of one, and learnt from the teacher's answer alone",
    )


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.picture.image import find_images
    from segdeploy.train.distil import distil

    images = tuple(find_images(arguments.unlabelled)) if arguments.unlabelled else ()
    train = functools.partial(distil, arguments.teacher, arguments.checkpoint)
    return trained_and_shown(arguments, train, images)
