from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from segdeploy.cli.arguments import INTERFACE_CHOICES, parse_batch, parse_size
from segdeploy.cli.printing import print_lines
from segdeploy.networks import FAMILIES
from segdeploy.networks.family import Option
from segdeploy.shell import command_line, shell_word


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a Hub id, a folder in Hub layout, a .safetensors, or a .pth or .pkl of the original projects",
    )
    parser.add_argument(
        "--card",
        metavar="NAME",
        help="a card of `segdeploy models`, or your own .yaml (default: the checkpoint's)",
    )
    parser.add_argument(
        "--size", type=parse_size, metavar="HxW", help="height x width of the input (default: the card's)"
    )
    parser.add_argument(
        "--interface",
        choices=INTERFACE_CHOICES,
        default="nvinfer",
        help="nvinfer: for DeepStream (default); frames: uint8 RGB in, uint8 labels out; logits: for research",
    )
    parser.add_argument(
        "--batch", type=parse_batch, metavar="N", default=1, help="batch size, or `dynamic` (default: 1)"
    )
    parser.add_argument("--fp16", action="store_true", help="FP16 inside; input and output keep their types")
    for option in options():
        kind: dict[str, Any] = (
            {"choices": option.choices, "metavar": option.metavar}
            if option.choices
            else {"action": "store_true"}
        )
        parser.add_argument(option.flag, default=None, help=option.help, **kind)
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit of a Hub checkpoint")
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, default=Path(), help="a folder, or an .onnx"
    )


def options() -> list[Option]:
    """List the options of all families, each name once."""
    return list({option.name: option for family in FAMILIES for option in family.options}.values())


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import steps

    given = {
        option.name: value for option in options() if (value := getattr(arguments, option.name)) is not None
    }
    with steps() as progress:
        progress("loading PyTorch")
        from segdeploy.convert.export import export_onnx

        exported = export_onnx(
            arguments.checkpoint,
            card=arguments.card,
            size=arguments.size,
            interface=arguments.interface,
            batch=arguments.batch,
            fp16=arguments.fp16,
            revision=arguments.revision,
            output=arguments.output,
            command=command_line("segdeploy", *sys.argv[1:]),
            progress=progress,
            **given,
        )
    print_lines(f"{exported.path}: {exported.agreement}")
    source = exported.record.source
    if source.assumed:
        print_lines(f"assumed, because {source.checkpoint} does not say it: {'; '.join(source.assumed)}")
    print_lines(f"next: segdeploy run {shell_word(exported.path)} IMAGE -o out")
    return 0
