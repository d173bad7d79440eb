from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segdeploy.cli.printing import print_lines, print_next
from segdeploy.cli.settings import verbs_below

# Where each shell looks for it, or what it reads as it starts.
PLACES = {
    "bash": "segdeploy completion bash > ~/.local/share/bash-completion/completions/segdeploy",
    "zsh": "segdeploy completion zsh > ~/.zfunc/_segdeploy, where fpath+=(~/.zfunc) stands before compinit in ~/.zshrc",
    "tcsh": "segdeploy completion tcsh > ~/.segdeploy.tcsh, and source it in ~/.tcshrc",
}
FOLDERS = ("DIR", "REPOSITORY")
FILES = ("MODEL", "ENGINE", "CHECKPOINT", "TEACHER", "STUDENT", "SOURCE", "OTHER", "FILE", "OUT")


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell", choices=tuple(PLACES), help="the shell that is to complete verbs, flags and files"
    )


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.errors import MissingExtra

    try:
        import shtab
    except ImportError as error:
        raise MissingExtra("shtab", "completion", "writing a shell's completion") from error
    for action in actions_of(arguments.whole_parser):
        if (kind := completed_by(action)) is not None:
            setattr(action, "complete", getattr(shtab, kind))  # noqa: B010 # shtab's own attribute
    print_lines(*shtab.complete(arguments.whole_parser, arguments.shell).splitlines())
    print_next(PLACES[arguments.shell])
    return 0


def actions_of(top: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    yield from top._actions
    for below in verbs_below(top).values():
        yield from actions_of(below)


def completed_by(action: Any) -> str | None:
    """Tell what of shtab's completes a value: files, folders, or None for neither."""
    if action.choices or action.nargs == 0:
        return None
    if action.metavar in FOLDERS:
        return "DIRECTORY"
    return "FILE" if action.type is Path or action.metavar in FILES else None
