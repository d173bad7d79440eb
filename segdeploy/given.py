"""Converts arguments that a Python caller may give in more than one form, and refuses all others in words."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

from segdeploy.errors import RequestError
from segdeploy.size import Size, parse_sizes, sizes_in_words


def as_path(value: str | PathLike[str], name: str) -> Path:
    """Take a path as text or as a path object; `name` is the argument's, for the message."""
    try:
        text = fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str) or not text:
        raise RequestError(
            f"{name} is {value!r}, a {type(value).__name__}; expected a path, as text or a Path"
        )
    return Path(text)


def as_optional_path(value: str | PathLike[str] | None, name: str) -> Path | None:
    return None if value is None else as_path(value, name)


def as_size(value: str | Size, name: str) -> Size:
    """Take `"512x1024"`, height before width, or a Size."""
    if isinstance(value, Size):
        return value
    if not isinstance(value, str):
        raise RequestError(
            f'{name} is {value!r}, a {type(value).__name__}; expected "HEIGHTxWIDTH", as in "512x1024", or a Size'
        )
    return Size.parse(value)


def as_sizes(value: str | Size | Sequence[Size] | None, name: str) -> tuple[Size, ...]:
    """Take one size or several, as `"512x1024,720x1280"` or as Sizes; none where nothing is given."""
    if value is None or isinstance(value, Size):
        return () if value is None else (value,)
    if isinstance(value, str):
        return parse_sizes(value)
    if not isinstance(value, Sequence):
        return (as_size(value, name),)  # which says what it is
    return parse_sizes(sizes_in_words([as_size(one, name) for one in value]))


def as_optional_size(value: str | Size | None, name: str) -> Size | None:
    return None if value is None else as_size(value, name)
