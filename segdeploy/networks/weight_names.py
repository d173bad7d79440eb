"""Renames weights by a table, and reads facts from their shapes.

A table has a line for each kind of name: the old name, and the new one.

    "backbone.block{s+1}.{b}.attn.kv.*": ("…block.{s}.{b}.attention.self.key.*", "…value.*")

`{s}`, `{b}` and `{i}` are numbers (`{s+1}` is written as one more than s), `{at}` is any beginning and `*` any end.
If one name becomes several, its rows are divided equally among them; if it becomes none, it is dropped. A name that
fits no line stays as it is, and `check_weights` refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from segdeploy.errors import CheckpointError
from segdeploy.networks.family import Weights

if TYPE_CHECKING:
    from torch import Tensor

Table = Mapping[str, "str | tuple[str, ...]"]

# Never used: BatchNorm's step counter, mmengine's EMA counter, mmcv's shadow of every parameter (its EMAHook swaps the
# averages into the plain names before it saves), heads that only help training.
_OF_TRAINING = re.compile(r".*num_batches_tracked$|steps$|ema_|auxiliary_head\.|backbone\.head\.")
_FIELD = re.compile(r"\{(\w+)([+-]\d+)?\}|\*")


def strip_wrappers(weights: Mapping[str, Tensor]) -> Weights:
    """Drop leftovers, then the prefix that DataParallel, Lightning or torch.compile put before every name."""
    kept = {name: tensor for name, tensor in weights.items() if not _OF_TRAINING.match(name)}
    for prefix in ("module.", "model.", "_orig_mod."):
        if kept and all(name.startswith(prefix) for name in kept):
            return strip_wrappers({name[len(prefix) :]: tensor for name, tensor in kept.items()})
    return kept


def under(old: str, new: str, table: Table) -> dict[str, str | tuple[str, ...]]:
    """Put `old` and `new` in front of the names on each side of `table`."""

    def begun(name: str) -> str:
        return f"{new}.{name}"

    return {
        f"{old}.{name}": begun(to) if isinstance(to, str) else tuple(map(begun, to))
        for name, to in table.items()
    }


def listed(names: Iterable[str], most: int = 5) -> str:
    """Write `a, b, c, d, e and 7 more`."""
    all_names = list(names)
    rest = len(all_names) - most
    return ", ".join(all_names[:most]) + (f" and {rest} more" if rest > 0 else "")


class _Rule:
    """Applies one line of a table."""

    def __init__(self, old: str, new: str | tuple[str, ...]) -> None:
        self.more = {name: int(more) for name, more in _FIELD.findall(old) if more}
        ends = [0, *(place for match in _FIELD.finditer(old) for place in match.span()), len(old)]
        pieces = [old[start:end] for start, end in pairwise(ends)]
        self.pattern = re.compile("".join(map(_as_regex, pieces)))
        self.targets = tuple(
            name.replace("*", "{rest}") for name in ((new,) if isinstance(new, str) else new)
        )

    def renamed(self, name: str) -> list[str] | None:
        """Give the new names for `name`; None if it does not fit this line."""
        match = self.pattern.fullmatch(name)
        if match is None:
            return None
        parts = {
            field: str(int(value) - self.more[field]) if field in self.more else value
            for field, value in match.groupdict().items()
        }
        return [target.format(**parts) for target in self.targets]


def _as_regex(piece: str) -> str:
    if piece == "*":
        return "(?P<rest>.+)"
    field = _FIELD.fullmatch(piece)
    if field is None:
        return re.escape(piece)
    return f"(?P<{field[1]}>{'.*' if field[1] == 'at' else '[0-9]{1,9}'})"


def renamed(weights: Weights, table: Table, source: str) -> Weights:
    rules = [_Rule(old, new) for old, new in table.items()]
    made: Weights = {}
    for name, tensor in weights.items():
        for new, part in _parts(name, tensor, rules):
            if new in made:
                raise CheckpointError(
                    f"{source} holds {name} and another weight that stands for {new} too; expected one of them"
                )
            made[new] = part
    return made


def _parts(name: str, tensor: Tensor, rules: list[_Rule]) -> Iterator[tuple[str, Tensor]]:
    names = next((new for rule in rules if (new := rule.renamed(name)) is not None), [name])
    if len(names) < 2:
        yield from ((new, tensor) for new in names)
    elif tensor.ndim == 0 or tensor.shape[0] % len(names):
        yield name, tensor
    else:
        # copies, since parts of one tensor share storage, which safetensors does not save
        yield from ((new, part.clone()) for new, part in zip(names, tensor.chunk(len(names)), strict=True))


class Shapes:
    """Reads the shapes of a checkpoint's weights, from which a missing configuration is inferred."""

    def __init__(self, weights: Weights, source: str, title: str) -> None:
        self.weights, self.source, self.title = weights, source, title

    def of(self, name: str, axes: int) -> tuple[int, ...]:
        """Return the shape of a weight, which must have `axes` axes."""
        if name not in self.weights:
            raise CheckpointError(f"{self.source} lacks {name}; expected every weight of {self.title}")
        shape = tuple(self.weights[name].shape)
        if len(shape) != axes:
            raise CheckpointError(f"{self.source} has {name} of shape {list(shape)}; expected {axes} axes")
        return shape

    def count(self, prefix: str) -> int:
        """Count the different next parts of the names that begin with `prefix`."""
        return len({name[len(prefix) :].split(".")[0] for name in self.weights if name.startswith(prefix)})


def check_weights(
    expected: Mapping[str, tuple[int, ...]],
    weights: Weights,
    source: str,
    asker: str = "its config",
    remedy: str = "Check that config and weights belong to the same model",
) -> None:
    """Refuse `weights` unless names and shapes are exactly the `expected` ones; BatchNorm's counters are ignored."""
    wanted = {name: shape for name, shape in expected.items() if not name.endswith("num_batches_tracked")}
    given = {name: tuple(t.shape) for name, t in weights.items() if not name.endswith("num_batches_tracked")}
    differences = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "misshapen": [
            f"{name} {list(given[name])} instead of {list(shape)}"
            for name, shape in wanted.items()
            if given.get(name, shape) != shape
        ],
    }
    found = [f"{what}: {listed(names)}" for what, names in differences.items() if names]
    if found:
        raise CheckpointError(
            f"{source} does not hold the {len(wanted)} weights that {asker} asks for; {'; '.join(found)}. {remedy}"
        )
