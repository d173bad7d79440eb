from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segdeploy.cli.arguments import INTERFACE_CHOICES, add_described, add_json, parse_batch, parse_size_list
from segdeploy.cli.printing import print_lines, print_next, put_json
from segdeploy.networks import FAMILIES
from segdeploy.networks.family import Option
from segdeploy.shell import shell_word

OWN = ("weights", "classes", "mean", "std", "answer", "threshold")  # arguments of FILE.py:function alone


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a Hub id, a folder in Hub layout, a .safetensors, or a .pth or .pkl of the original projects; or"
        " FILE.py:function, which RUNS that file's code, and exports the torch.nn.Module that the function returns",
    )
    parser.add_argument(
        "--card",
        metavar="NAME",
        help="a card of `segdeploy models`, or your own .yaml (default: the checkpoint's)",
    )
    parser.add_argument(
        "--size",
        type=parse_size_list,
        metavar="HxW,…",
        help="height x width of the input (default: the card's); several, as in 512x1024,720x1280, make one graph",
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
    parser.add_argument(
        "--opset",
        type=int,
        choices=(16, 17),
        default=17,
        help="ONNX opset: 16 is for TensorRT 8.4 and 8.5, which read no LayerNormalization (default: 17)",
    )
    for option in options():
        kind: dict[str, Any] = (
            {"choices": option.choices, "metavar": option.metavar}
            if option.choices
            else {"action": "store_true"}
        )
        parser.add_argument(option.flag, default=None, help=option.help, **kind)
    describe_own(parser.add_argument_group("of a network of your own (FILE.py:function)"))
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit of a Hub checkpoint")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        default=Path(),
        help="a folder, or an .onnx (default: the current folder)",
    )
    add_json(parser)


def describe_own(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--weights", metavar="W", type=Path, help="its weights, all of them and no others")
    add_described(group)
    group.add_argument(
        "--answer", metavar="NAME", help="which of several tensors it answers: a key, or an index from 0"
    )


def options() -> list[Option]:
    """List the options of all families, each name once."""
    return list({option.name: option for family in FAMILIES for option in family.options}.values())


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import steps
    from segdeploy.networks.sources import demand_there, is_own_code

    asked = {name: value for name in OWN if (value := getattr(arguments, name)) is not None}
    given = {
        option.name: value for option in options() if (value := getattr(arguments, option.name)) is not None
    }
    is_own = is_own_code(arguments.checkpoint) or arguments.checkpoint.endswith(".py")
    demand_heeded(arguments, is_own, given if is_own else asked)
    if not is_own:
        demand_there(arguments.checkpoint)
    shared = {name: getattr(arguments, name) for name in ("card", "size", "interface", "batch", "output")} | {
        "command": arguments.command
    }
    stride = None
    with steps() as progress:
        progress("loading PyTorch")
        if is_own:
            from segdeploy.convert.own_module import export_module

            adopted = export_module(arguments.checkpoint, progress=progress, **asked, **shared)
            source, path, record = "the code", adopted.path, adopted.record
            seen, assumed = adopted.agreement, adopted.assumed
        else:
            from segdeploy.convert.export import export_onnx

            exported = export_onnx(
                arguments.checkpoint, fp16=arguments.fp16, opset=arguments.opset, revision=arguments.revision,
                progress=progress, **given, **shared,
            )  # fmt: skip
            path, record, stride = exported.path, exported.record, exported.window_stride
            source, seen, assumed = record.source.checkpoint, exported.agreement, record.source.assumed
    facts = {
        "file": str(path),
        "assumed": assumed,
        "window_stride": stride and str(stride),
        "record": asdict(record),
    }
    if put_json(arguments.json, facts):
        return 0
    print_lines(f"{path}: {seen}")
    if assumed:
        print_lines(f"assumed, because {source} does not say it: {'; '.join(assumed)}")
    if stride is not None:
        print_lines(f"its published test slides windows of this size: evaluate --windows --stride {stride}")
    print_next(f"segdeploy run {shell_word(path)} IMAGE -o out")
    return 0


def demand_heeded(arguments: argparse.Namespace, is_own: bool, others: dict[str, Any]) -> None:
    """Refuse flags of the other kind of network."""
    from segdeploy.errors import RequestError

    flags = [f"--{name.replace('_', '-')}" for name in others]
    if is_own:
        flags += ["--revision"] if arguments.revision else []
        flags += ["--opset"] if arguments.opset != 17 else []
        if arguments.fp16:
            raise RequestError(
                "a network of your own is exported in FP32; leave out --fp16, and let `segdeploy build-engine --fp16`"
                " write it into the graph"
            )
    if flags:
        kind = "a checkpoint" if is_own else "FILE.py:function"
        raise RequestError(f"{flags[0]} is for {kind}, and not for {arguments.checkpoint}; leave it out")
