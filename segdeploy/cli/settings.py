"""Reads flags from where a service has them: a file (--config), and the environment (SEGDEPLOY_MAX_DROP: --max-drop).

A value there is the text that would stand on the command line, and argparse's own actions check it. The command line
wins over the file, and the file over the environment. A variable stands for a flag that may be left out, of whichever
verb has it; a file is of one verb, and may hold its arguments too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

from segdeploy.cli.arguments import parse_json_file
from segdeploy.cli.printing import MANNER, print_message, safe
from segdeploy.errors import RequestError
from segdeploy.shell import command_line

PREFIX = "SEGDEPLOY_"
YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
FILE = "settings_file"
LOG = "SEGDEPLOY_LOG"
LEVELS = ("info", "error")
NO_FLAG = (LOG, "SEGDEPLOY_GPU")  # variables that are of none
Given = dict[argparse.Action, Any]


class Parser(argparse.ArgumentParser):
    """Refuses a command line in words that are safe to print, as argparse's own quote arguments as they are."""

    def error(self, message: str) -> NoReturn:
        super().error(safe(message))


class SettingsParser(argparse.ArgumentParser):
    """Takes the words of a file or of a variable, whose name begins what is said of them."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{self.prog}: {message}")


def add_manners(parser: argparse.ArgumentParser) -> None:
    """Add what every verb takes; to the two whose --config is DeepStream's, all but that."""
    group = parser.add_argument_group("of every verb")
    if "--config" not in parser._option_string_actions:
        group.add_argument(
            "--config",
            dest=FILE,
            metavar="FILE",
            type=Path,
            help="a YAML file with flags and arguments by name, as in `provider: cuda`; the command line wins",
        )
    talk = group.add_mutually_exclusive_group()
    talk.add_argument(
        "-q", "--quiet", action="store_true", help="say only what went wrong or has to be known"
    )
    talk.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="say each step, with the time, as a log does (SEGDEPLOY_LOG=info)",
    )


def take_manner(arguments: argparse.Namespace | None, environment: Mapping[str, str]) -> None:
    """Talk as the environment says, and where the command line is read, as that says."""
    level = environment.get(LOG) or None
    MANNER.quiet, MANNER.logs = level == "error", level == "info"
    if arguments is not None and (arguments.quiet or arguments.verbose):
        MANNER.quiet, MANNER.logs = arguments.quiet, arguments.verbose
    if level not in (None, *LEVELS):
        raise RequestError(f"{LOG} is {level!r}; expected {' or '.join(LEVELS)}")


def leaves(top: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Give the parsers that end a command: of a verb, or of each of its steps."""
    below = verbs_below(top)
    if not below:
        yield top
    for one in below.values():
        yield from leaves(one)


def verbs_below(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    return next(
        (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)), {}
    )


def parse_words(
    top: argparse.ArgumentParser, words: Sequence[str], environment: Mapping[str, str]
) -> argparse.Namespace:
    """Parse a command line, with what it does not say from its --config and from the environment.

    `command` of the result is the command as it would be typed without these two, and `filled` has their words.
    """
    leaf, own = top, list(words)
    while own and own[0] in verbs_below(leaf):
        leaf = verbs_below(leaf)[own.pop(0)]
    head = words[: len(words) - len(own)]
    own = with_json_alone(leaf, own)
    filled: dict[str, list[str]] = {}
    if leaf is not top and not verbs_below(leaf) and not {"-h", "--help"} & {*own}:
        filled = fill(leaf, own, environment)
    arguments = top.parse_args([*head, *own])
    added = [word for one in filled.values() for word in one]
    arguments.command = command_line("segdeploy", *head, *added, *without_file(own))
    arguments.filled = filled
    return arguments


def with_json_alone(leaf: argparse.ArgumentParser, own: Sequence[str]) -> list[str]:
    """Let `inspect --json x.onnx` print: --json takes the next word, unless that is a file of another kind."""
    action = leaf._option_string_actions.get("--json")
    if action is None or action.type is not parse_json_file:
        return list(own)
    return [
        "--json=-"
        if word == "--json" and after and not after.endswith(".json") and Path(after).exists()
        else word
        for word, after in zip_longest(own, own[1:])
    ]


def fill(
    leaf: argparse.ArgumentParser, own: Sequence[str], environment: Mapping[str, str]
) -> dict[str, list[str]]:
    """Make defaults of what the environment and the file say, and the command line does not.

    Gives the words that would say it, by the variable or the file and the flag that they are from.
    """
    typed = given_in(leaf, own)
    variables = dict(values_of_variables(leaf, environment))
    file = next((value for action, (value, _) in {**variables, **typed}.items() if action.dest == FILE), None)
    named = {} if file is None else values_in(leaf, file)
    if any(not action.option_strings for action in typed):  # the words of the command line are all of them
        named = {action: one for action, one in named.items() if action.option_strings}
    taken = without_rivals(leaf, without_rivals(leaf, variables, named) | named, typed)
    for action, (value, _) in taken.items():
        action.default, action.required = value, False
    return {
        f"{file}: {name_of(action)}" if action in named else variable(action): words
        for action, (_, words) in taken.items()
        if action.dest != FILE
    }


def without_rivals(leaf: argparse.ArgumentParser, lower: Given, higher: Given) -> Given:
    """Leave out of `lower` what `higher` says, and what excludes a flag there."""
    said = set(higher)
    for group in leaf._mutually_exclusive_groups:
        if said & set(group._group_actions):
            said |= set(group._group_actions)
    return {action: one for action, one in lower.items() if action not in said}


def given_in(leaf: argparse.ArgumentParser, own: Sequence[str]) -> Given:
    """Find the actions that the command line names, whatever it lacks."""
    needed = [action for action in leaf._actions if action.required]
    marks: dict[str, list[object]] = {
        action.dest: [] for action in leaf._actions
    }  # a list of its own for each, to which an action may append
    for action in needed:
        action.required = False
    found, _ = leaf.parse_known_args(list(own), argparse.Namespace(**marks))
    for action in needed:
        action.required = True
    values = vars(found)
    return {
        action: (values[action.dest], [])
        for action in leaf._actions
        if values.get(action.dest) is not marks.get(action.dest)
    }


# ---- the file ----------------------------------------------------------------------------------------------------


def values_in(leaf: argparse.ArgumentParser, path: Path) -> Given:
    from segdeploy.untrusted import Unreadable, load_yaml

    try:
        facts = load_yaml(path, as_text=True)
    except Unreadable as error:
        raise RequestError(f"--config {path} {error}") from error
    if not isinstance(facts, dict):
        raise RequestError(f"--config {path} must have flags by name, as in `provider: cuda`, one a line")
    known = {name: action for action in leaf._actions if is_settable(action) for name in keys_for(action)}
    found: Given = {}
    for key, value in facts.items():
        action = known.get(str(key).replace("_", "-"))
        if action is None:
            raise RequestError(f"--config {path}: {leaf.prog} has no flag {key!r}{nearest(str(key), known)}")
        if action in found:
            raise RequestError(f"--config {path} says {key} twice")
        found[action] = typed_value(f"--config {path}", action, value)
    for group in leaf._mutually_exclusive_groups:
        if len(rivals := [name_of(action) for action in found if action in group._group_actions]) > 1:
            raise RequestError(f"--config {path}: {' and '.join(rivals)} exclude each other; leave one out")
    return {action: found[action] for action in leaf._actions if action in found}


def nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name.replace("_", "-"), list(known), 1, 0.5)
    return f"; near it: {near[0]}" if near else "; its --help lists them"


def is_settable(action: argparse.Action) -> bool:
    return action.dest != FILE and not isinstance(
        action, argparse._HelpAction | argparse._VersionAction | argparse._SubParsersAction
    )


def keys_for(action: argparse.Action) -> list[str]:
    """Give the names of an action in a file: its flags without their dashes, or an argument's word in --help."""
    if not action.option_strings:
        return [str(action.metavar or action.dest).lower().replace("_", "-")]
    flags = action.option_strings[:1] if is_switch(action) else action.option_strings
    return [flag.lstrip("-") for flag in flags]


def is_switch(action: argparse.Action) -> bool:
    """Tell an action that has two flags, --name and --no-name."""
    return isinstance(action, argparse.BooleanOptionalAction)


def name_of(action: argparse.Action) -> str:
    return f"--{keys_for(action)[-1]}" if action.option_strings else str(action.metavar)


# ---- the environment ---------------------------------------------------------------------------------------------


def variable(action: argparse.Action) -> str:
    return PREFIX + keys_for(action)[-1].replace("-", "_").upper()


def values_of_variables(
    leaf: argparse.ArgumentParser, environment: Mapping[str, str]
) -> Iterator[tuple[argparse.Action, Any]]:
    for action in leaf._actions:
        optional = action.option_strings and not action.required
        if optional and (is_settable(action) or action.dest == FILE):
            name = variable(action)
            if text := environment.get(name):
                yield action, typed_value(name, action, text)


def tell_of_misspelt(top: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """Name a variable that is almost one of a flag's; any other may be another program's."""
    ours = sorted(name for name in environment if name.startswith(PREFIX) and name not in NO_FLAG)
    if not ours:
        return
    from difflib import get_close_matches

    known = {variable(action) for leaf in leaves(top) for action in leaf._actions if action.option_strings}
    for name in ours:
        if name not in known and (near := get_close_matches(name, known, 1, 0.9)):
            print_message(f"{name} is no flag of any verb; did you mean {near[0]}?")


# ---- both --------------------------------------------------------------------------------------------------------


def typed_value(origin: str, action: argparse.Action, value: object) -> tuple[Any, list[str]]:
    """Let argparse's own action take a value; give what it makes of it, and the words that say it."""
    many = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) and one for one in many) or not many:
        raise RequestError(
            f"{origin}: {name_of(action)} takes a value, or a list of values, and not {value!r}"
        )
    words = words_for(origin, action, [str(one) for one in many])
    if not words:
        return action.default, words
    alone = SettingsParser(prog=origin, add_help=False)
    alone._add_action(action)
    return getattr(alone.parse_args(words), action.dest), words


def words_for(origin: str, action: argparse.Action, values: Sequence[str]) -> list[str]:
    if not action.option_strings:
        return [*values] if action.nargs else [",".join(values)]
    flag, joined = action.option_strings[-1], ",".join(values)
    if action.nargs == 0 or (action.nargs == "?" and joined in YES[:3]):
        if joined.lower() in NO:
            return [flag] if is_switch(action) else []
        if joined.lower() not in YES:
            raise RequestError(f"{origin}: {flag} is {joined!r}; expected true or false")
        return [action.option_strings[0] if is_switch(action) else flag]
    if isinstance(action, argparse._AppendAction):
        return [f"{flag}={value}" for value in values]
    return [flag, *values] if action.nargs == "+" else [f"{flag}={joined}"]


def without_file(words: Sequence[str]) -> list[str]:
    """Leave --config out of a command that has its values."""
    kept: list[str] = []
    skipping = False
    for word in words:
        if skipping or word.startswith("--config="):
            skipping = False
        elif word == "--config":
            skipping = True
        else:
            kept.append(word)
    return kept
