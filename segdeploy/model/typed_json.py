"""Reads JSON into frozen dataclasses: every value is checked against the type of its field, and a wrong one is named.

A new part of a file costs a dataclass only, because the types of its fields are the format: text, numbers, true and
false, `X | None`, tuples, dicts by text, other dataclasses, and `Annotated[X, allowed]`, where `allowed` is a pattern
that the whole text has to match, or what holds the values that are understood (a range, a tuple of names).
"""

from __future__ import annotations

import re
import reprlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
# For each dataclass by its name, what an older schema called its fields; None: the field is gone.
Renamed = Mapping[str, Mapping[str, str | None]]
KINDS: dict[object, str] = {
    str: "text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
}
# JSON can write half of a character, which cannot be printed; but for those by which Python spells a file's name.
SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class WrongField(ValueError):
    """A field of a JSON file does not hold; the message names it, what was found, and what was expected."""


def from_json(kind: type[T], value: object, renamed: Renamed | None = None) -> T:
    """Read `value`, as json.loads gives it, as the dataclass `kind`."""
    made: T = read_field(kind, value, "it", renamed or {})
    return made


def read_field(kind: Any, value: object, field: str, renamed: Renamed) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if NoneType in parts:
        return None if value is None else read_field(parts[0], value, field, renamed)
    if origin is Annotated:
        return demand_allowed(parts[1], read_field(parts[0], value, field, renamed), field)
    if is_dataclass(kind):
        return read_object(kind, demand_kind(dict, value, "an object", field), field, renamed)
    if origin is tuple:
        values = demand_kind(list, value, "a list", field)
        kinds = [parts[0]] * len(values) if parts[-1] is Ellipsis else list(parts)
        if len(values) != len(kinds):
            raise WrongField(f"{field} is a list of {len(values)}; expected one of {len(kinds)}")
        pairs = zip(kinds, values, strict=True)
        return tuple(read_field(*pair, f"{field}[{place}]", renamed) for place, pair in enumerate(pairs))
    if origin is dict:
        given = demand_kind(dict, value, "an object", field)
        return {
            read_plain(str, name, f"a name in {field}"): read_field(parts[1], one, f"{field}.{name}", renamed)
            for name, one in given.items()
        }
    return read_plain(kind, value, field)


def read_object(kind: Any, given: dict[str, object], field: str, renamed: Renamed) -> Any:
    """Take an object that has all fields of the dataclass `kind` that have no default, and nothing else."""
    names, types = renamed.get(kind.__name__, {}), types_of_fields(kind)
    todays = ((names.get(name, name), value) for name, value in given.items())
    found = {name: value for name, value in todays if name is not None}
    for name in found:
        if name not in types:
            raise WrongField(f"{field} has {reprlib.repr(name)}, which is none of its fields")
    for one in fields(kind):
        if one.name not in found and one.default is MISSING and one.default_factory is MISSING:
            raise WrongField(f"{field} has no {one.name!r}")
    inside = "" if field == "it" else f"{field}."
    read = {name: read_field(types[name], value, inside + name, renamed) for name, value in found.items()}
    return kind(**read)


@cache
def types_of_fields(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def read_plain(kind: Any, value: object, field: str) -> Any:
    """Take text that can be printed, true or false, or a number that 64 bits hold; a float may be written as 1."""
    holds = type(value) is kind or (kind is float and type(value) is int)
    if isinstance(value, str):
        holds = holds and not SURROGATES.search(value)
    elif isinstance(value, int | float):
        largest = sys.float_info.max if kind is float else 2**63 - 1
        holds = holds and -largest <= value <= largest  # which a NaN is not
    if not holds:
        raise wrong_field(value, KINDS[kind], field)
    return kind(value)


def demand_allowed(allowed: Any, value: Any, field: str) -> Any:
    if isinstance(allowed, re.Pattern):
        holds, words = bool(allowed.fullmatch(value)), f"text that matches {allowed.pattern}"
    elif isinstance(allowed, range):
        holds, words = value in allowed, f"{allowed[0]} to {allowed[-1]}"
    else:
        named = " or ".join(map(str, allowed)) if isinstance(allowed, Iterable) else str(allowed)
        holds, words = value in allowed, named
    if not holds:
        raise wrong_field(value, words, field)
    return value


def demand_kind(kind: type[T], value: object, words: str, field: str) -> T:
    if not isinstance(value, kind):
        raise wrong_field(value, words, field)
    return value


def wrong_field(value: object, expected: str, field: str) -> WrongField:
    kinds = {list: "a list", dict: "an object", NoneType: "null", bool: str(value).lower()}
    return WrongField(f"{field} is {kinds.get(type(value)) or reprlib.repr(value)}; expected {expected}")
