from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from segdeploy.cli.arguments import add_json
from segdeploy.cli.printing import lines_in_columns, print_lines, print_next, put_json

if TYPE_CHECKING:
    from segdeploy.doctor import Diagnosis


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
    width = max(len(one.subject) for one in diagnosis.findings)
    for one in diagnosis.findings:
        print_lines(f"{one.level:<7}  {one.subject:<{width}}  {one.found}")
        for remedy in (one.remedy, one.command):
            if remedy:
                print_lines(f"{'':<7}  {'':<{width}}    {remedy}")
    print_lines("", "what will work")
    width = max(len(one.words) for one in diagnosis.abilities)
    for able in diagnosis.abilities:
        print_lines(f"{'yes' if able.works else 'no':<7}  {able.words:<{width}}  {able.why}")
    print_next(diagnosis.next)


def lines_of_tables(named: dict[str, list[tuple[str, ...]]]) -> list[str]:
    """Give each table under its name, with an empty line before the next one."""
    return [line for name, rows in named.items() for line in ("", name, *lines_in_columns(rows))][1:]


def records(rows: list[tuple[str, ...]]) -> list[dict[str, str]]:
    head, *body = rows
    return [dict(zip(head, row, strict=True)) for row in body]
