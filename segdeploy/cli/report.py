from __future__ import annotations

import argparse
from pathlib import Path

from segdeploy.cli.printing import print_lines, print_message, print_next
from segdeploy.shell import command_line


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="a folder with files of export, evaluate and bench"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="the page (default: DIR/report.html)"
    )


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.assess.report import write_page
    from segdeploy.assess.report.findings import look_into
    from segdeploy.assess.report.page import readable
    from segdeploy.errors import RequestError

    output = arguments.output or arguments.folder / "report.html"
    if output.suffix not in (".html", ".htm"):
        raise RequestError(f"-o {output} is no .html file")
    findings = readable(look_into(arguments.folder))
    write_page(findings, output)
    for fault in findings.faults:
        print_message(fault)
    print_lines(f"{output}, {output.stat().st_size / 1e6:.1f} MB; it opens in any browser and loads nothing")
    if findings.faults:
        return 1
    print_next(command_line("xdg-open", output))
    return 0
