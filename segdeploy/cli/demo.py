from __future__ import annotations

import argparse
from pathlib import Path

from segdeploy.cli.own_command import own_command
from segdeploy.cli.printing import print_lines
from segdeploy.shell import command_line


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, default=Path("demo-out"), help="default: demo-out"
    )


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import steps

    with steps(also_unseen=True) as progress:
        progress("loading ONNX Runtime and OpenCV")
        from segdeploy.demo import run_demo

        demo = run_demo(arguments.output, progress=progress)
    me = own_command()
    print_lines(
        f"The bundled SegFormer-B0 is {demo.graph}.",
        f"It was compared with PyTorch when it was packed: {demo.record.agreement_in_words}.",
        f"Its INT8 form is {demo.int8.path}.",
        f"{demo.int8.record.verdict}.",
        f"On {demo.images} made scenes it never saw it scores {demo.miou:.1%} mIoU,"
        f" {demo.pixel_accuracy:.1%} of the pixels.",
        "It knows made scenes only: for a real street take a real checkpoint.",
        f"Its DeepStream configuration is {demo.configuration}.",
        f"Replayed without DeepStream it agrees with the graph in Python: {demo.replay.agreement}.",
        "",
        f"look at   {demo.first}  (the first picture)",
        f"          {demo.sheet}  (scene, truth and answer)",
        f"          {demo.clip}",
        f"          {demo.wipe}  (FP32 left of the line, INT8 right of it)",
        f"          {demo.replayed}  (what that configuration shows of {demo.street})",
        f"next      {command_line(*me, 'run', 'demo-b0', demo.street, '-o', arguments.output / 'seen.mp4')}",
        f"          {command_line(*me, 'inspect', demo.int8.path)}",
        "          a network of your own needs PyTorch, whose build for CPUs is enough:",
        "          pip install torch --index-url https://download.pytorch.org/whl/cpu"
        " && pip install 'segdeploy[cpu,export]'",
        f"          {command_line(*me, 'export', 'nvidia/segformer-b0-finetuned-cityscapes-1024-1024')} -o out",
    )
    return 0
