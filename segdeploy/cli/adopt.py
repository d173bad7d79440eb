from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from segdeploy.cli.arguments import INTERFACE_CHOICES, add_described, add_json, parse_batch, parse_size_list
from segdeploy.cli.printing import print_lines, print_next, put_json
from segdeploy.shell import shell_word


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="an .onnx of any exporter")
    parser.add_argument(
        "--card",
        metavar="NAME",
        help="a card of `segdeploy models`, or your own .yaml, that describes the graph",
    )
    add_described(parser)
    parser.add_argument(
        "--size",
        type=parse_size_list,
        metavar="HxW,…",
        help="input size, if the graph leaves it open; several make one graph of them",
    )
    parser.add_argument("--answer", metavar="NAME", help="the output with the classes, if there are several")
    parser.add_argument(
        "--interface",
        choices=INTERFACE_CHOICES,
        default="nvinfer",
        help="nvinfer: for DeepStream (default); frames: uint8 RGB in, labels out; logits: for research",
    )
    parser.add_argument(
        "--batch", type=parse_batch, metavar="N", default=1, help="batch size, or `dynamic` (default: 1)"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        default=Path(),
        help="a folder, or an .onnx (default: the current folder)",
    )
    add_json(parser)


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import steps
    from segdeploy.convert.adopt.adopt import adopt

    with steps() as progress:
        adopted = adopt(
            arguments.model,
            card=arguments.card,
            classes=arguments.classes,
            mean=arguments.mean,
            std=arguments.std,
            size=arguments.size,
            answer=arguments.answer,
            threshold=arguments.threshold,
            interface=arguments.interface,
            batch=arguments.batch,
            output=arguments.output,
            command=arguments.command,
            progress=progress,
        )
    facts = {"file": str(adopted.path), "assumed": adopted.assumed, "record": asdict(adopted.record)}
    if put_json(arguments.json, facts):
        return 0
    print_lines(f"{adopted.path}: {adopted.agreement}")
    print_lines(*(f"assumed: {words}" for words in adopted.assumed))
    print_next(f"segdeploy run {shell_word(adopted.path)} IMAGE -o out")
    return 0
