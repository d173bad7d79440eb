from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segdeploy.model.engine import EngineProof


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", metavar="ENGINE", type=Path, help="an .engine with its record beside it")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.prove.verify import verify

    verify(arguments.engine, lambda proof: show(arguments, proof))
    return 0


def show(arguments: argparse.Namespace, proof: EngineProof) -> None:
    if arguments.json:
        print(json.dumps({"engine": str(arguments.engine)} | vars(proof), indent=1))
        return
    batches = ", ".join(map(str, proof.batches))
    print(
        f"{arguments.engine}: {proof.pixel_agreement:.4%} of the pixels as {proof.compared_with} labels them"
        f" (worst slot {proof.worst_slot:.4%}; batches of {batches} on {proof.device})"
    )
