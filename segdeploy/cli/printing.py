"""Prints what a command has to say, so that no name in it is obeyed by a terminal; nothing else in this folder prints.

Tables and progress bars are rich's, and go through `segdeploy.cli.console`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from segdeploy.picture.video_location import without_credentials
from segdeploy.printable import in_brief, printable, printable_json

EMPTY = re.compile(
    r"(--[a-z][a-z-]*=)?|(--[a-z][a-z-]*=|-[a-z])--"
)  # argparse makes a list of a value that is --


@dataclass
class Manner:
    """Says how this command talks on standard error; what it prints on standard output is the same in each."""

    quiet: bool = False  # says only what went wrong or has to be known
    logs: bool = False  # says each step, each line with the time


MANNER = Manner()


def print_lines(*lines: object) -> None:
    """Print each on a line of its own, whatever it holds."""
    for line in lines:
        print(printable(str(line)))


def print_message(text: object) -> None:
    """Say on standard error what went wrong, or what has to be known."""
    print(f"{begin_line()}{safe(str(text))}", file=sys.stderr)


def print_talk(text: object) -> None:
    """Say on standard error what is good to know, unless the command is to be quiet."""
    if not MANNER.quiet:
        print_message(text)


def print_next(*commands: str) -> None:
    """Say what to type next; the last thing that a command says, once all that it prints is out."""
    sys.stdout.flush()
    print_talk(f"next: {'; or '.join(commands)}")


def print_log(text: object) -> None:
    """Say what only a log needs."""
    if MANNER.logs:
        print_message(text)


def begin_line() -> str:
    return (
        f"{datetime.now().astimezone().isoformat(timespec='milliseconds')} segdeploy: "
        if MANNER.logs
        else "segdeploy: "
    )


def safe(text: str) -> str:
    """Shorten a message, spell what a terminal would obey, and leave passwords out of the addresses in it."""
    return in_brief(printable(without_credentials(text) if ":/" in text else text))


def print_json(facts: object) -> None:
    print(printable_json(facts))


def put_json(place: str | None, facts: object) -> bool:
    """Print or write what --json asks for; tell whether it stands in place of the text."""
    if place == "-":
        print_json(facts)
    elif place is not None:
        from segdeploy.files import write_text

        write_text(Path(place), printable_json(facts) + "\n")
    return place == "-"


def lines_in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Fill the cells of each column up to its longest."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def demand_no_empty_word(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Refuse an argument that is empty, as an unset variable leaves it: as a path it would be this very folder."""
    for place, word in enumerate(words, start=1):
        if EMPTY.fullmatch(word):
            parser.error(f"argument {place} is empty: {word!r}; give it a value, or leave it out")
