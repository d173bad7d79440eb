"""Makes the reference of the command line from its own parsers, so that no flag is missing and none is invented."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from segdeploy.cli import parser


def page() -> str:
    return "\n".join(of_verbs(parser(), "segdeploy"))


def of_verbs(top: argparse.ArgumentParser, name: str) -> Iterator[str]:
    for action in top._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for verb, inner in action.choices.items():
            yield from of_verb(inner, f"{name} {verb}")


def of_verb(verb: argparse.ArgumentParser, name: str) -> Iterator[str]:
    depth = "#" * len(name.split())
    yield f"{depth} {name}\n"
    if verb.description:
        yield f"{prose(verb.description)}\n"
    if any(isinstance(action, argparse._SubParsersAction) for action in verb._actions):
        yield from of_verbs(verb, name)
        return
    verb.prog = name
    yield f"```text\n{usage_of(verb)}\n```\n"
    for group in verb._action_groups:
        rows = [
            action
            for action in group._group_actions
            if action.help != argparse.SUPPRESS and action.dest != "help"
        ]
        if rows:
            yield f"| {heading_of(group)} | |\n|---|---|"
            yield from (f"| {words_of(action)} | {cell(help_of(action, verb))} |" for action in rows)
            yield ""


def usage_of(verb: argparse.ArgumentParser) -> str:
    """Give the command in one form: what is needed, and that there are options."""
    needed = [form_of(action) for action in verb._actions if action.required or not action.option_strings]
    has_options = any(action.option_strings and not action.required for action in verb._actions)
    return " ".join([verb.prog, *needed, *(["[OPTION …]"] if has_options else [])])


def form_of(action: argparse.Action) -> str:
    name = value_of(action)
    if action.option_strings:
        return f"{action.option_strings[-1]} {name}".strip()
    return {"*": f"[{name} …]", "+": f"{name} [{name} …]", "?": f"[{name}]"}.get(str(action.nargs), name)


def value_of(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.metavar:
        return action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    if action.choices:
        return "|".join(map(str, action.choices))
    return action.dest.upper()


def words_of(action: argparse.Action) -> str:
    flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
    value = value_of(action).replace("|", "\\|")
    return f"{flags} `{value}`" if flags and value else flags or f"`{value}`"


def heading_of(group: argparse._ArgumentGroup) -> str:
    return {"positional arguments": "argument", "options": "option"}.get(group.title or "", group.title or "")


def help_of(action: argparse.Action, verb: argparse.ArgumentParser) -> str:
    return verb._get_formatter()._expand_help(action) if action.help else ""


def cell(text: str) -> str:
    return prose(re.sub(r"\s+", " ", text)).replace("|", "\\|")


def prose(text: str) -> str:
    """Keep what Markdown would take for its own: <, * and _ are letters in a help text, and flags are code."""
    text = re.sub(r"([<*_\[\]])", r"\\\1", text)
    return re.sub(r"(?<![\w`-])(--?[a-z][a-z-]*[a-z])(?![\w`])", r"`\1`", text)
