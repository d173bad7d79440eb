from __future__ import annotations

import argparse
from pathlib import Path

from segdeploy.cli.arguments import add_json
from segdeploy.cli.printing import print_lines, print_next, put_json
from segdeploy.shell import command_line


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="DIR",
        type=Path,
        help="a folder that export, quantize or finetune has written to",
    )
    parser.add_argument(
        "repository", metavar="OWNER/NAME", help="the repository on the Hub; a new one is private"
    )
    parser.add_argument("--public", action="store_true", help="make a new repository that everybody sees")
    parser.add_argument("--revision", metavar="BRANCH", help="a branch, which is made if there is none")
    parser.add_argument("--message", metavar="WORDS", help="of the commit")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the model card and the files; nothing is sent, and nobody asked",
    )
    add_json(parser)


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.cli.console import steps
    from segdeploy.serve.hub.push import PushRequest, prepare, push

    asked = {
        name: value for name in ("revision", "message") if (value := getattr(arguments, name)) is not None
    }
    request = PushRequest(arguments.folder, arguments.repository, arguments.public, **asked)
    with steps() as progress:
        progress(f"sending {arguments.folder}" if not arguments.dry_run else "reading the records")
        done = prepare(request) if arguments.dry_run else push(request)
    facts = {
        "repository": request.repository,
        "url": done.url or None,
        "files": [path.as_posix() for path in done.contents.files],
        "left_out": [path.as_posix() for path in done.contents.left_out],
        "card": done.card,
    }
    if put_json(arguments.json, facts):
        return 0
    if arguments.dry_run and done.card is not None:
        print_lines(*done.card.splitlines())
    print_lines(*(f"sent: {path}" if done.url else f"would be sent: {path}" for path in done.contents.files))
    print_lines(*(f"left out: {path}" for path in done.contents.left_out))
    if done.url:
        print_lines(done.url)
    if not done.url:
        print_next("the same command without --dry-run")
    elif done.contents.is_checkpoint:
        print_next(command_line("segdeploy", "export", request.repository, "-o", "out"))
    else:
        print_next(f"hf download {request.repository} --local-dir out, and segdeploy inspect what is in it")
    return 0
