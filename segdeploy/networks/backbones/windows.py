"""Cuts tokens into windows, which may be shifted, joins them again, and says which tokens see each other.

All of it is constant for an input size. A token's channels are taken head by head, so that one gather gives windows
whose heads already lie apart, and one brings them back.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FORBIDDEN = -100.0  # added to the scores of tokens that a shifted window joins and the image does not


def forbidden_pairs(rows: int, columns: int, side: int, shift: int) -> Tensor | None:
    """Make windows×1×L×L of 0 and FORBIDDEN: a shift brings both ends of the image into the last windows."""
    if not shift:
        return None

    def parts(windows: int) -> Tensor:  # along one axis: windows×side; only the last window has two
        return (torch.arange(windows * side) >= windows * side - shift).int().reshape(windows, side)

    part = parts(rows)[:, None, :, None] * 2 + parts(columns)[None, :, None, :]  # rows×columns×side×side
    part = part.reshape(rows * columns, 1, side * side)
    return (part[:, :, :, None] != part[:, :, None, :]).float() * FORBIDDEN


class Regrouping(nn.Module):
    """Reorders tokens, with zeros where the order has -1: N×L×C -> N×len(order)×C."""

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.order = nn.Buffer(order.clamp(min=0))
        self.present = nn.Buffer((order >= 0).float()[None, :, None]) if (order < 0).any() else None

    def forward(self, tokens: Tensor) -> Tensor:
        regrouped = tokens.index_select(1, self.order)
        return regrouped if self.present is None else regrouped * self.present


def window_order(height: int, width: int, side: int, shift: int) -> Tensor:
    """Give the token at each place in each window, -1 for padding."""
    places = padded_places(height, width, side).roll((-shift, -shift), (0, 1))
    rows, columns = places.shape[0] // side, places.shape[1] // side
    return places.reshape(rows, side, columns, side).transpose(1, 2).flatten()


def merging_order(height: int, width: int) -> Tensor:
    """Give four neighbours one after the other, column by column, as patch merging concatenates them."""
    places = padded_places(height, width, 2)
    rows, columns = places.shape[0] // 2, places.shape[1] // 2
    return places.reshape(rows, 2, columns, 2).permute(0, 2, 3, 1).flatten()


def padded_places(height: int, width: int, multiple: int) -> Tensor:
    places = torch.arange(height * width).reshape(height, width)
    return F.pad(places, (0, -width % multiple, 0, -height % multiple), value=-1)


class Windows(nn.Module):
    """Cuts a map's tokens into windows of heads and joins them again, and holds the mask of forbidden pairs."""

    def __init__(self, height: int, width: int, side: int, shift: int, heads: int) -> None:
        super().__init__()
        order = window_order(height, width, side, shift).reshape(-1, side * side)
        self.heads, self.count, self.length = heads, *order.shape
        self.tokens = height * width
        self.cut_rows = nn.Buffer(rows_to_cut(order.clamp(min=0), 3 * heads))
        absent = order < 0
        self.present = nn.Buffer((~absent).float()[None, :, None, :, None]) if absent.any() else None
        self.join_rows = nn.Buffer(rows_to_join(order, heads, self.tokens))
        forbidden = forbidden_pairs(-(-height // side), -(-width // side), side, shift)
        self.forbidden = None if forbidden is None else nn.Buffer(forbidden[None])

    def cut(self, triples: Tensor) -> Tensor:  # Nhw×3C -> N×windows×3·heads×L×d, with zeros as padding
        images, size = len(triples) // self.tokens, triples.shape[1] // (3 * self.heads)
        rows = triples.reshape(images, self.tokens * 3 * self.heads, size).index_select(1, self.cut_rows)
        cut = rows.reshape(images, self.count, 3 * self.heads, self.length, size)
        return cut if self.present is None else cut * self.present

    def join(self, mixed: Tensor) -> Tensor:  # N×windows×heads×L×d -> Nhw×C
        rows = mixed.flatten(1, 3).index_select(1, self.join_rows)
        return rows.reshape(len(mixed) * self.tokens, self.heads * mixed.shape[-1])


def rows_to_cut(order: Tensor, parts: int) -> Tensor:
    """Give the row of each part of each token, window by window and part by part; a token's parts are neighbours."""
    return (order[:, None] * parts + torch.arange(parts)[:, None]).flatten()


def rows_to_join(order: Tensor, heads: int, tokens: int) -> Tensor:
    """Give the row of each head of each token, in the order of the map, among windows × heads × places."""
    windows, length = order.shape
    window, place = torch.arange(windows)[:, None, None], torch.arange(length)[:, None]
    row = (window * heads + torch.arange(heads)) * length + place  # windows×L×heads
    return row.flatten(0, 1)[order.flatten().argsort(stable=True)[-tokens:]].flatten()
