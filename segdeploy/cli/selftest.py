from __future__ import annotations

import argparse
from pathlib import Path

from segdeploy.cli.arguments import add_json, between
from segdeploy.cli.printing import lines_in_columns, print_lines, print_next, put_json


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", metavar="JSON", type=Path, help="write the result to this file, to be sent"
    )
    add_json(parser)
    parser.add_argument(
        "--seconds",
        type=between(1, 36_000, whole=False),
        metavar="S",
        default=60.0,
        help="begin no further graph after S seconds (default: 60)",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Exit status 1 where a graph differs: what a runtime refuses is told, and is no fault of the graph's."""
    from segdeploy.cli.console import steps
    from segdeploy.files import write_text
    from segdeploy.printable import printable_json
    from segdeploy.selftest import AGREES, DIFFERS, NOT_RUN, REFUSED, run_selftest
    from segdeploy.selftest.told import as_told

    with steps(also_unseen=True) as progress:
        progress("unpacking small graphs")
        result = run_selftest(arguments.seconds, progress)
        progress("asking what is installed")
        told = as_told(result)
    if arguments.output is not None:
        write_text(arguments.output, printable_json(told) + "\n")
    if put_json(arguments.json, told):
        return 1 if result.differing else 0
    counts = {runtime: result.counted(runtime) for runtime in result.runtimes}
    rows = [
        [runtime, *(str(count[one] or "") for one in (AGREES, DIFFERS, REFUSED, NOT_RUN))]
        for runtime, count in counts.items()
    ]
    print_lines(*lines_in_columns([["graphs", AGREES, DIFFERS, REFUSED, NOT_RUN], *rows]))
    for one in result.outcomes:
        if one.result == DIFFERS:
            print_lines(f"differs: {one.graph}, {one.runtime}: {one.agreement:.2%} of the labels")
        elif one.result == REFUSED:
            print_lines(f"refused: {one.graph}, {one.runtime}: {one.why}")
    if arguments.output is not None:
        print_lines("", f"the result is {arguments.output}")
        print_next("send it; selftest/README.md of segdeploy's sources says where to")
    else:
        print_next("segdeploy selftest -o result.json, which writes what can be sent")
    return 1 if result.differing else 0
