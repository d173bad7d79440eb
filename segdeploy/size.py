"""Defines a size: height and width, in that order, everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segdeploy.errors import RequestError

SMALLEST, LARGEST = 64, 16384
MOST_SIZES = 8  # of one graph: each is traced, proven and given a profile


def is_number(text: str) -> bool:
    """Tell whether a text is a whole number of at most nine digits, which is more than any count here needs."""
    return text.isdecimal() and len(text) < 10


@dataclass(frozen=True)
class Size:
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Parse `512x1024`, height x width, with sides of 64 to 16384."""
        height, cross, width = text.lower().partition("x")
        if not (cross and is_number(height) and is_number(width)):
            raise RequestError(f"{text!r} is not a size; expected HEIGHTxWIDTH, as in 512x1024")
        size = cls(int(height), int(width))
        for side in (size.height, size.width):
            if not SMALLEST <= side <= LARGEST:
                raise RequestError(
                    f"the size {text} has a side of {side}; a side is {SMALLEST} to {LARGEST} pixels"
                )
        return size

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


def parse_sizes(text: str) -> tuple[Size, ...]:
    """Parse `512x1024,720x1280`: one size, or several of one graph, the one that it is mostly for first."""
    parts = text.split(",", MOST_SIZES)
    if len(parts) > MOST_SIZES:
        raise RequestError(
            f"more than {MOST_SIZES} sizes were asked for; one graph has at most {MOST_SIZES}: export the others by"
            " themselves"
        )
    sizes = tuple(Size.parse(part.strip()) for part in parts)
    for place, size in enumerate(sizes):
        if size in sizes[:place]:
            raise RequestError(f"the size {size} was asked for twice; name each size once")
    return sizes


def sizes_in_words(sizes: Sequence[Size]) -> str:
    """Write sizes as `parse_sizes` reads them."""
    return ",".join(map(str, sizes))
