from __future__ import annotations

import argparse
from pathlib import Path

from segdeploy.cli.printing import print_lines
from segdeploy.shell import shell_word


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, default=Path("demo-out"), help="default: demo-out"
    )


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import steps

    with steps() as progress:
        progress("loading PyTorch")
        from segdeploy.demo import run_demo

        demo = run_demo(arguments.output, progress=progress)
    print_lines(
        f"The bundled SegFormer-B0 is now {demo.exported.path}.",
        f"It was compared with PyTorch: {demo.exported.agreement}.",
        f"Its INT8 form is {demo.int8.path}.",
        f"{demo.int8.record.verdict}.",
        f"On {demo.images} made scenes it never saw it scores {demo.miou:.1%} mIoU,"
        f" {demo.pixel_accuracy:.1%} of the pixels.",
        "It knows made scenes only: for a real street take a real checkpoint.",
        f"Its DeepStream configuration is {demo.configuration}.",
        f"Replayed without DeepStream it agrees with PyTorch: {demo.replay.agreement}.",
        "",
        f"look at   {demo.sheet}  (scene | truth | answer)",
        f"          {demo.clip}",
        f"          {demo.replayed}  (what that configuration shows of {demo.street})",
        "next      segdeploy export nvidia/segformer-b0-finetuned-cityscapes-1024-1024 -o out",
        "          segdeploy run out/segformer-b0-cityscapes.1024x1024.nvinfer.onnx IMAGE_OR_FOLDER -o out",
        f"          segdeploy inspect {shell_word(demo.int8.path)}",
    )
    return 0
