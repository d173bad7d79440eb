from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from segdeploy.cli.arguments import add_json
from segdeploy.cli.printing import lines_in_columns, print_lines, print_next, put_json

if TYPE_CHECKING:
    from segdeploy.doctor import Diagnosis


COLOURS = {"ok": "green", "yes": "green", "note": "cyan", "problem": "bold red", "no": "yellow"}


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", action="store_true", help="print only which versions belong together")
    parser.add_argument(
        "--require",
        metavar="ABILITY",
        action="append",
        type=parse_ability,
        default=[],
        help="exit with 1 unless this works, as in export, build-engine or run-engine; for scripts and containers",
    )
    add_json(parser)


def parse_ability(text: str) -> str:
    from segdeploy.doctor import ABILITIES

    if text not in ABILITIES:
        raise argparse.ArgumentTypeError(f"{text!r} is not known; known: {', '.join(ABILITIES)}")
    return text


def execute(arguments: argparse.Namespace) -> int:
    """Exit status 0 whatever is found: a laptop without a GPU is not an error, unless it is told to be one."""
    from dataclasses import asdict

    from segdeploy.doctor import ThisMachine, diagnose, tables

    if arguments.table:
        if not put_json(arguments.json, {name: records(rows) for name, rows in tables().items()}):
            print_lines(*lines_of_tables(tables()))
            print_next("segdeploy doctor, which says what of it is here")
        return 0
    diagnosis = diagnose(ThisMachine())
    if not put_json(arguments.json, asdict(diagnosis)):
        show(diagnosis)
    works = {one.name: one.works for one in diagnosis.abilities}
    return 0 if all(works[name] for name in arguments.require) else 1


def show(diagnosis: Diagnosis) -> None:
    from segdeploy.cli.console import show_columns

    rows = []
    for one in diagnosis.findings:
        rows.append((f"{one.level:<7}", one.subject, one.found))
        rows += [("", "", f"  {remedy}") for remedy in (one.remedy, one.command) if remedy]
    show_columns(rows, COLOURS)
    print_lines("", "what will work")
    abilities = [(f"{'yes' if one.works else 'no':<7}", one.words, one.why) for one in diagnosis.abilities]
    show_columns(abilities, COLOURS)
    print_next(diagnosis.next)


def lines_of_tables(named: dict[str, list[tuple[str, ...]]]) -> list[str]:
    """Give each table under its name, with an empty line before the next one."""
    return [line for name, rows in named.items() for line in ("", name, *lines_in_columns(rows))][1:]


def records(rows: list[tuple[str, ...]]) -> list[dict[str, str]]:
    head, *body = rows
    return [dict(zip(head, row, strict=True)) for row in body]
