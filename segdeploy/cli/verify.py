from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segdeploy.cli.arguments import add_device
from segdeploy.cli.printing import print_json, print_lines
from segdeploy.shell import command_line

if TYPE_CHECKING:
    from segdeploy.model.engine import EngineProof


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", metavar="ENGINE", type=Path, help="an .engine with its record beside it")
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.errors import RequestError
    from segdeploy.networks.sources import is_checkpoint
    from segdeploy.prove.verify import verify

    engine = arguments.engine
    if is_checkpoint(str(engine)) and engine.exists():
        raise RequestError(
            f"{engine} is a checkpoint, and an engine is compared with its graph; build one first:"
            f" {command_line('segdeploy', 'build-engine', engine)}"
        )
    verify(arguments.engine, lambda proof: show(arguments, proof))
    return 0


def show(arguments: argparse.Namespace, proof: EngineProof) -> None:
    if arguments.json:
        print_json({"engine": str(arguments.engine)} | vars(proof))
        return
    batches = ", ".join(map(str, proof.batches))
    print_lines(
        f"{arguments.engine}: {proof.pixel_agreement:.4%} of the pixels as {proof.compared_with} labels them"
        f" (worst slot {proof.worst_slot:.4%}; batches of {batches} on {proof.device})"
    )
