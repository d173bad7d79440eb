from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a Hub id, a folder in Hub layout, a .safetensors, or a .pth or .pkl of the original projects",
    )
    parser.add_argument(
        "--card",
        metavar="NAME",
        help="a card of `segdeploy models`, or your own .yaml (default: found by itself)",
    )
    parser.add_argument("--size", metavar="HxW", help="height x width of the input (default: the card's)")
    parser.add_argument(
        "--interface",
        default="nvinfer",
        help="nvinfer: for DeepStream (default); frames: uint8 RGB in, uint8 labels out; logits: for research",
    )
    parser.add_argument("--batch", metavar="N", default="1", help="batch size, or `dynamic` (default: 1)")
    parser.add_argument("--fp16", action="store_true", help="FP16 inside; input and output keep their types")
    parser.add_argument(
        "--msda",
        metavar="FORM",
        help="how a Mask2Former's deformable attention is written: gridsample (default); gather, for the TensorRT "
        "versions that sample wrongly; plugin, for full TensorRT only",
    )
    parser.add_argument(
        "--any-task",
        action="store_true",
        help="take a checkpoint for panoptic or instance segmentation too, for its semantic map",
    )
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit of a Hub checkpoint")
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, default=Path(), help="folder, or an .onnx"
    )


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import steps
    from segdeploy.errors import RequestError
    from segdeploy.size import Size

    size = Size.parse(arguments.size) if arguments.size else None
    batch = None if arguments.batch == "dynamic" else arguments.batch
    if batch is not None and not batch.isdecimal():
        raise RequestError(f"--batch {arguments.batch!r} is neither a number nor `dynamic`")
    with steps() as progress:
        progress("loading PyTorch")
        from segdeploy.convert.export import export_onnx

        exported = export_onnx(
            arguments.checkpoint,
            card=arguments.card,
            size=size,
            interface=arguments.interface,
            batch=None if batch is None else int(batch),
            fp16=arguments.fp16,
            msda=arguments.msda,
            any_task=arguments.any_task,
            revision=arguments.revision,
            output=arguments.output,
            command=shlex.join(["segdeploy", *sys.argv[1:]]),
            progress=progress,
        )
    print(f"{exported.path}: {exported.agreement}")
    print(f"next: segdeploy run {shlex.quote(str(exported.path))} IMAGE -o out")
    return 0
