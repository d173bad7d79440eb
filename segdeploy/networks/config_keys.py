"""Checks a config.json against the keys of the network that it describes.

The reference implementation builds its network from its configuration's keys. Each key is in one of three tables: read,
supported with one value only, or without influence on the network's function. A test walks the reference's own class,
so that a key it gains later must be put into one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segdeploy.errors import CheckpointError

LARGEST = 65536  # of any number in a configuration: the product of four still fits 64 bits
MOST_LAYERS = 512  # one after the other


@dataclass(frozen=True)
class ConfigKeys:
    read: Mapping[str, Any]  # with the reference's defaults
    fixed: Mapping[str, Any]  # with the only supported value
    unread: tuple[str, ...]  # training, initialisation, further outputs: no influence on the function
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names that the reference takes for a key
    document: str = "config.json"  # where they stand, for messages

    def complete(self, stated: Mapping[str, Any], source: str) -> dict[str, Any]:
        """Give `stated` with a value for every key that is read; refuses values that mean another network."""
        stated = self.without_aliases(stated, source)
        for key, wanted in self.fixed.items():
            found = stated.get(key, wanted)
            if as_list(found) != wanted:
                raise CheckpointError(
                    f"the {self.document} of {source} has {key} {found!r}; only {wanted!r} is supported"
                )
        config = {**self.read, **self.fixed, **stated}
        for key, default in self.read.items():
            config[key] = as_list(config[key])
            if wrong := mismatch(config[key], default):
                raise CheckpointError(
                    f"the {self.document} of {source} has {key} {config[key]!r}; expected {wrong}"
                )
        return config

    def without_aliases(self, stated: Mapping[str, Any], source: str) -> dict[str, Any]:
        found = dict(stated)
        for alias, key in self.aliases.items():
            if alias in stated and found.setdefault(key, stated[alias]) != stated[alias]:
                raise CheckpointError(
                    f"the config.json of {source} has {key} {found[key]!r} and {alias} {stated[alias]!r}, which are"
                    " two names of one thing; expected the same value"
                )
        return found


def demand_few_layers(config: Mapping[str, Any], keys: Sequence[str], source: str) -> None:
    """Refuse more layers than any network has, before one of them is made."""
    for key in keys:
        if max(config[key]) > MOST_LAYERS if isinstance(config[key], list) else config[key] > MOST_LAYERS:
            raise CheckpointError(
                f"the config.json of {source} has {key} {config[key]!r}; at most {MOST_LAYERS} layers are supported"
            )


def demand_heads(key: str, sizes: Sequence[int], heads: Sequence[int], source: str) -> None:
    """Refuse stages whose channels are not a multiple of their attention heads."""
    if any(size % count for size, count in zip(sizes, heads, strict=True)):
        raise CheckpointError(
            f"the config.json of {source} has {key} {list(sizes)} and attention heads {list(heads)}; expected multiples"
            " of the heads, stage by stage"
        )


def as_list(value: object) -> Any:
    return list(value) if isinstance(value, tuple) else value


def mismatch(value: object, default: object) -> str:
    """Say what was expected instead of `value`, which must be of the kind of `default`; "" where it is."""
    if default is None:  # of no one kind: its reader looks at it
        return ""
    if isinstance(default, str):
        return "" if isinstance(value, str) else "text"
    if isinstance(default, list):
        fits = isinstance(value, list) and value and not any(mismatch(item, default[0]) for item in value)
        return (
            ""
            if fits
            else f"a list of {mismatch(None, default[0]).partition(' ')[2].replace('number', 'numbers')}"
        )
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    kinds, words = (
        (int, "a whole number above 0") if isinstance(default, int) else (int | float, "a number above 0")
    )
    fits = isinstance(value, kinds) and not isinstance(value, bool) and 0 < value <= LARGEST
    return "" if fits else f"{words}, and at most {LARGEST}"
