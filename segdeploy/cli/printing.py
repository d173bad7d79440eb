"""Prints what a command has to say, so that no name in it is obeyed by a terminal; nothing else in this folder prints.

Tables and progress bars are rich's, and go through `segdeploy.cli.console`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from segdeploy.picture.video_location import without_credentials
from segdeploy.printable import in_brief, printable, printable_json

EMPTY = re.compile(
    r"(--[a-z][a-z-]*=)?|(--[a-z][a-z-]*=|-[a-z])--"
)  # argparse makes a list of a value that is --


def print_lines(*lines: object) -> None:
    """Print each on a line of its own, whatever it holds."""
    for line in lines:
        print(printable(str(line)))


def print_message(text: object) -> None:
    """Say on standard error what went wrong, or what has to be known."""
    print(f"segdeploy: {safe(str(text))}", file=sys.stderr)


def safe(text: str) -> str:
    """Shorten a message, spell what a terminal would obey, and leave passwords out of the addresses in it."""
    return in_brief(printable(without_credentials(text) if ":/" in text else text))


def print_json(facts: object) -> None:
    print(printable_json(facts))


def lines_in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Fill the cells of each column up to its longest."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


class Parser(argparse.ArgumentParser):
    """Refuses a command line in words that are safe to print, as argparse's own quote arguments as they are."""

    def error(self, message: str) -> NoReturn:
        super().error(safe(message))


def demand_no_empty_word(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Refuse an argument that is empty, as an unset variable leaves it: as a path it would be this very folder."""
    for place, word in enumerate(words, start=1):
        if EMPTY.fullmatch(word):
            parser.error(f"argument {place} is empty: {word!r}; give it a value, or leave it out")
