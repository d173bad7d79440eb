from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segdeploy.cli.arguments import LONGEST_S, SHORTEST_S, add_device, add_json, between
from segdeploy.cli.model_argument import parse_model
from segdeploy.cli.printing import print_lines, print_next, put_json
from segdeploy.errors import RequestError
from segdeploy.run.address import ModelAddress
from segdeploy.shell import command_line

if TYPE_CHECKING:
    from segdeploy.model.engine import EngineProof


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "engine",
        metavar="ENGINE",
        type=parse_model,
        help="an .engine with its record beside it, or a model on a server, triton://HOST:PORT/MODEL",
    )
    parser.add_argument(
        "--deadline",
        metavar="S",
        type=between(SHORTEST_S, LONGEST_S, whole=False),
        help="seconds in which a server has to have answered, all in all (default: 4.5)",
    )
    add_device(parser)
    add_json(parser)


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.networks.sources import is_checkpoint

    engine: Path | ModelAddress = arguments.engine
    if isinstance(engine, ModelAddress):
        return execute_served(engine, arguments)
    if arguments.deadline is not None:
        raise RequestError(
            f"--deadline is for a model on a server, and {engine.name} is a file; leave it out"
        )
    from segdeploy.prove.verify import verify

    if is_checkpoint(str(engine)) and engine.exists():
        raise RequestError(
            f"{engine} is a checkpoint, and an engine is compared with its graph; build one first:"
            f" {command_line('segdeploy', 'build-engine', engine)}"
        )
    verify(engine, lambda proof: show(arguments, proof))
    if arguments.json != "-":
        print_next(command_line("segdeploy", "bench", engine))
    return 0


def execute_served(address: ModelAddress, arguments: argparse.Namespace) -> int:
    from segdeploy.prove.verify_served import DEADLINE_S, verify_served

    proof = verify_served(address, arguments.deadline or DEADLINE_S)
    if put_json(arguments.json, {"address": str(address)} | vars(proof)):
        return 0
    batches = ", ".join(map(str, proof.batches))
    print_lines(
        f"{address}: {proof.pixel_agreement:.4%} of the pixels as the record of {proof.artifact} has them (version"
        f" {proof.version}, batches of {batches}, {proof.server}, {proof.seconds:.2f} s)"
    )
    print_next(command_line("segdeploy", "bench", address))
    return 0


def show(arguments: argparse.Namespace, proof: EngineProof) -> None:
    if put_json(arguments.json, {"engine": str(arguments.engine)} | vars(proof)):
        return
    batches = ", ".join(map(str, proof.batches))
    print_lines(
        f"{arguments.engine}: {proof.pixel_agreement:.4%} of the pixels as {proof.compared_with} labels them"
        f" (worst slot {proof.worst_slot:.4%}; batches of {batches} on {proof.device})"
    )
