from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", metavar="ENGINE", type=Path, help="an .engine with its record beside it")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.prove.verify import verify

    verify(arguments.engine, lambda verified: show(arguments, verified))
    return 0


def show(arguments: argparse.Namespace, verified: dict[str, Any]) -> None:
    if arguments.json:
        print(json.dumps({"engine": str(arguments.engine)} | verified, indent=1))
        return
    batches = ", ".join(map(str, verified["batches"]))
    print(
        f"{arguments.engine}: {verified['pixel_agreement']:.4%} of the pixels as {verified['with']} labels them"
        f" (worst slot {verified['worst_slot']:.4%}; batches of {batches} on {verified['device']})"
    )
