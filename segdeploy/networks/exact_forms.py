"""Computes pooling as engines can build it, at the fixed size that a network is traced at.

Adaptive pooling with windows of several sizes becomes thousands of nodes in PyTorch's exporter, and pooling that
remembers its places, with the unpooling that goes back to them, becomes nodes that TensorRT does not have. At a fixed
size both are plain arithmetic: averages are two products with constant matrices, maxima are those of slices, and an
unpooled map is the enlarged one wherever it has its own place. What a form does not cover stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Sides = tuple[int, int]


class ExactForms(TorchFunctionMode):
    """Replaces the functions below while it is entered, in whatever module they are called."""

    def __torch_function__(
        self, function: Any, types: Any, given: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        form = FORMS.get(function)
        made = form(function, *given, **(named or {})) if form else None
        return function(*given, **(named or {})) if made is None else made


def pair(given: Any) -> tuple[Any, Any]:
    return tuple(given) if isinstance(given, (list, tuple)) else (given, given)


def windows(count: int, length: int) -> list[slice]:
    """Cut `length` places into `count` windows, which may overlap by one, as PyTorch does."""
    return [slice(one * length // count, -(-(one + 1) * length // count)) for one in range(count)]


def wanted_sides(maps: Tensor, asked: Any) -> Sides:
    """Give the sides asked of an adaptive pooling; None among them keeps the map's own."""
    rows, columns = pair(asked)
    return int(maps.shape[-2] if rows is None else rows), int(maps.shape[-1] if columns is None else columns)


def averages(function: Any, maps: Tensor, output_size: Any) -> Tensor | None:
    rows, columns = wanted_sides(maps, output_size)
    height, width = int(maps.shape[-2]), int(maps.shape[-1])
    if (rows, columns) == (height, width):
        return maps
    if height % rows == 0 and width % columns == 0:
        step = height // rows, width // columns
        return F.avg_pool2d(maps, step, step)
    by_row, by_column = window_shares(rows, height), window_shares(columns, width)
    return by_row.to(maps) @ (maps @ by_column.T.contiguous().to(maps))


def window_shares(count: int, length: int) -> Tensor:
    """count×length: the share that each place has in the average over each window."""
    rows = [
        [
            1 / (window.stop - window.start) if window.start <= place < window.stop else 0.0
            for place in range(length)
        ]
        for window in windows(count, length)
    ]
    return torch.tensor(rows)  # made of numbers: PyTorch's older exporter loses what is written into a tensor


def maxima(function: Any, maps: Tensor, output_size: Any, return_indices: bool = False) -> Tensor | None:
    if return_indices:
        return None
    rows, columns = wanted_sides(maps, output_size)
    height, width = int(maps.shape[-2]), int(maps.shape[-1])
    if height % rows == 0 and width % columns == 0:
        step = height // rows, width // columns
        return F.max_pool2d(maps, step, step)
    maps = torch.cat([maps[..., one, :].amax(-2, keepdim=True) for one in windows(rows, height)], -2)
    return torch.cat([maps[..., one].amax(-1, keepdim=True) for one in windows(columns, width)], -1)


def maxima_with_places(
    function: Any, maps: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """Give the maxima of windows side by side, and where in the map they were (the first of equal ones)."""
    step = pair(kernel_size)
    if pair(stride or kernel_size) != step or any(pair(padding)) or pair(dilation) != (1, 1) or ceil_mode:
        return None
    rows, columns = int(maps.shape[-2]) // step[0], int(maps.shape[-1]) // step[1]
    width = int(maps.shape[-1])
    maps = maps[..., : rows * step[0], : columns * step[1]]
    cut = maps.reshape(*maps.shape[:-2], rows, step[0], columns, step[1])
    cells = cut.transpose(-3, -2).reshape(*maps.shape[:-2], rows, columns, step[0] * step[1])
    inside = cells.argmax(-1)
    down = inside.div(step[1], rounding_mode="trunc")  # the places are not negative, and this is one node
    right = inside - down * step[1]
    corner = torch.arange(rows)[:, None] * step[0] * width + torch.arange(columns) * step[1]
    return cells.amax(-1), corner.to(inside) + down * width + right


def unpooled(
    function: Any, maps: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    output_size: Any = None,
) -> Tensor | None:  # fmt: skip
    """Put each value back to its place, and zeros around it; the places must lie in their own windows."""
    step = pair(kernel_size)
    if pair(stride or kernel_size) != step or any(pair(padding)):
        return None
    rows, columns = int(maps.shape[-2]) * step[0], int(maps.shape[-1]) * step[1]
    height, width = (int(side) for side in (output_size[-2:] if output_size is not None else (rows, columns)))
    if height < rows or width < columns:
        return None
    places = torch.arange(rows)[:, None] * width + torch.arange(columns)
    own = repeated_over(indices, step) == places.to(indices)
    raised = torch.where(own, repeated_over(maps, step), torch.zeros((), dtype=maps.dtype))
    return (
        F.pad(raised, (0, width - columns, 0, height - rows))
        if (height, width) != (rows, columns)
        else raised
    )


def repeated_over(maps: Tensor, step: tuple[int, int]) -> Tensor:
    """Repeat each value over a window of `step`."""
    *before, rows, columns = maps.shape
    wide = maps.reshape(*before, rows, 1, columns, 1).expand(*before, rows, step[0], columns, step[1])
    return wide.reshape(*before, rows * step[0], columns * step[1])


FORMS: dict[Any, Callable[..., Any]] = {
    F.adaptive_avg_pool2d: averages,
    torch._C._nn.adaptive_avg_pool2d: averages,
    F.adaptive_max_pool2d: maxima,
    F.max_pool2d_with_indices: maxima_with_places,
    F.max_unpool2d: unpooled,
    torch._C._nn.max_unpool2d: unpooled,
}
