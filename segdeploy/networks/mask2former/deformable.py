"""Defines multi-scale deformable attention: the plain module, and three equal forms for devices.

Every token of three maps looks at a few points around its own place in each of them (Deformable DETR,
arXiv:2010.04159). `DeployedDeformableAttention.fit` chooses the form:

* `gridsample`: one GridSample per level. The standard operator, at opset 19 or less: TensorRT 10.13 computes that of
  opset 20 wrongly (NVIDIA/TensorRT#4646).
* `gather`: no GridSample, for the versions of TensorRT that are reported to sample wrongly whatever the opset
  (NVIDIA/TensorRT#4813: 10.14 to 11.1). The neighbours of each point are gathered, and summed by a product.
* `plugin`: TensorRT's own MultiscaleDeformableAttnPlugin_TRT, a node outside ONNX. Full TensorRT only.

The reference points are constants of the exported size. The scale from offsets in pixels to a grid of -1 to 1 is in
the weights of the layer that predicts the offsets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.networks.family import Sides
from segdeploy.networks.folding import linear

LEVELS, POINTS = 3, 4
PLUGIN = "MultiscaleDeformableAttnPlugin_TRT"
PLUGIN_DOMAIN = (
    "trt.plugins"  # TensorRT reads the name only; ONNX Runtime's TensorRT provider needs this domain
)


def centres(sides: Sides) -> Tensor:
    """Give the centre of each token of each level as x and y of 0 to 1: S×2."""
    found = []
    for height, width in sides:
        y, x = (torch.arange(0.5, side) / side for side in (height, width))
        found.append(torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).reshape(-1, 2))
    return torch.cat(found)


class DeformableAttention(nn.Module):
    """Computes the attention as published, under the Hub's parameter names."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.sampling_offsets = nn.Linear(size, heads * LEVELS * POINTS * 2)
        self.attention_weights = nn.Linear(size, heads * LEVELS * POINTS)
        self.value_proj = nn.Linear(size, size)
        self.output_proj = nn.Linear(size, size)

    def forward(self, tokens: Tensor, positions: Tensor, sides: Sides) -> Tensor:  # N×S×C
        batch, count, size = tokens.shape
        queries = tokens + positions
        offsets = self.sampling_offsets(queries).reshape(batch, count, self.heads, LEVELS, POINTS, 2)
        shares = self.attention_weights(queries).reshape(batch, count, self.heads, -1).softmax(-1)
        values = self.value_proj(tokens).split_with_sizes([height * width for height, width in sides], dim=1)
        sampled = []
        for level, (height, width) in enumerate(sides):
            maps = values[level].transpose(1, 2).reshape(batch * self.heads, -1, height, width)
            places = centres(sides)[:, None, None] + offsets[:, :, :, level] / torch.tensor([width, height])
            grid = (2 * places - 1).transpose(1, 2).flatten(0, 1)
            sampled.append(F.grid_sample(maps, grid, align_corners=False))
        shares = shares.transpose(1, 2).flatten(0, 1)[:, None]
        mixed = (torch.cat(sampled, -1) * shares).sum(-1).reshape(batch, size, count)
        projected: Tensor = self.output_proj(mixed.transpose(1, 2))
        return projected


class DeployedDeformableAttention(nn.Module):
    def __init__(self, plain: DeformableAttention) -> None:
        super().__init__()
        self.heads = plain.heads
        self.value, self.project, self.shares = plain.value_proj, plain.output_proj, plain.attention_weights
        self.offsets = [plain.sampling_offsets]  # in a list, so no submodule: the graph has `locate` instead

    def fit(self, sides: Sides, form: str) -> None:
        """Make the constants for maps of these sides, and the module that samples in this form."""
        pixels = torch.tensor([[width, height] for height, width in sides], dtype=torch.float64)  # LEVELS×xy
        samplers: dict[str, type[GridSampling | Gathering | Plugin]] = {
            "gridsample": GridSampling,
            "gather": Gathering,
            "plugin": Plugin,
        }
        sampler: GridSampling | Gathering | Plugin = samplers[form](sides, self.heads)
        self.locate = self.located(sampler.unit(pixels), sampler.order)
        self.sample = sampler

    def located(self, unit: Tensor, order: tuple[int, ...]) -> nn.Linear:
        """Make the offsets' layer in the sampler's units, with its outputs (head, level, point, xy) in its order."""
        plain = self.offsets[0]

        def reordered(rows: Tensor) -> Tensor:
            parts = rows.double().reshape(self.heads, LEVELS, POINTS, 2, -1) * unit[:, None, :, None]
            return parts.permute(*order, 4).reshape(rows.shape).to(rows.dtype)

        return linear(reordered(plain.weight), reordered(plain.bias[:, None])[:, 0])

    def forward(self, tokens: Tensor, queries: Tensor) -> Tensor:  # N×1×S×C
        batch, _, count, _ = tokens.shape
        shares = self.shares(queries).reshape(batch, count, self.heads, LEVELS * POINTS).softmax(-1)
        projected: Tensor = self.project(self.sample(self.value(tokens), self.locate(queries), shares))
        return projected


class GridSampling(nn.Module):
    """Samples with GridSample; the heads join the batch, since GridSample has one grid per image."""

    order = (1, 0, 2, 3)  # level, head, point, xy

    def __init__(self, sides: Sides, heads: int) -> None:
        super().__init__()
        self.sides, self.heads = sides, heads
        self.lengths = [height * width for height, width in sides]
        self.centres = nn.Buffer((2 * centres(sides) - 1)[None, None, None])  # 1×1×1×S×xy

    @staticmethod
    def unit(pixels: Tensor) -> Tensor:
        return 2 / pixels

    def forward(self, values: Tensor, offsets: Tensor, shares: Tensor) -> Tensor:
        batch, _, count, size = values.shape
        joined = batch * self.heads
        # Points come before places: neighbours then read nearby memory, and sums over points add whole rows.
        offsets = offsets.reshape(batch, count, LEVELS, self.heads * POINTS, 2).permute(0, 2, 3, 1, 4)
        grids = (offsets + self.centres).split_with_sizes([1] * LEVELS, dim=1)
        # In three axes: ONNX Runtime fuses a permutation of four axes with the reshape after it, which is slow.
        shares = shares.reshape(batch, count, self.heads * LEVELS * POINTS).transpose(1, 2)
        shares = shares.reshape(joined, 1, LEVELS * POINTS, count)
        parts = shares.split_with_sizes([POINTS] * LEVELS, dim=2)
        maps = values.transpose(2, 3).split_with_sizes(self.lengths, dim=3)
        mixed = []
        for (height, width), level, grid, part in zip(self.sides, maps, grids, parts, strict=True):
            level = level.reshape(joined, size // self.heads, height, width)
            grid = grid.reshape(joined, POINTS, count, 2)
            mixed.append((F.grid_sample(level, grid, align_corners=False) * part).sum(2))
        total: Tensor = mixed[0] + mixed[1] + mixed[2]
        return total.reshape(batch, 1, size, count).transpose(2, 3)


class Gathering(nn.Module):
    """Gathers and weighs the four pixels around each point, by arithmetic that needs no test for the border.

    The first pixel is at most the last but one, so that its neighbour exists (no side is below 64, so every level has
    two pixels or more). A pixel at distance d weighs max(0, 1 - d), which is the bilinear weight inside and zero where
    padding would have been read. One node gathers the two pixels of a row; one for all four would save a node and need
    twice the memory.
    """

    order = (3, 0, 1, 2)  # xy, head, level, point

    def __init__(self, sides: Sides, heads: int) -> None:
        super().__init__()
        self.heads = heads
        pixels = torch.tensor([[width, height] for height, width in sides]).float()
        places = centres(sides)[:, None] * pixels - 0.5  # S×LEVELS×xy
        # Constants have all axes of their partners, N×xy×heads×S×pair×(level, point): TensorRT need not add any.
        self.places = nn.Buffer(per_point(places, 1).permute(2, 0, 1)[None, :, None, :, None].contiguous())
        self.last = nn.Buffer(per_point(pixels - 2, 0).T[None, :, None, None, None].contiguous())
        ends = torch.tensor([height * width for height, width in sides]).cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]]).float()
        self.first = nn.Buffer(per_point(starts, 0).reshape(1, 1, 1, 1, 1, -1))
        self.pitch = nn.Buffer(
            per_point(pixels[:, 0], 0).reshape(1, 1, 1, 1, 1, -1)
        )  # from a row to the next
        self.pair = nn.Buffer(torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 1, 2, 1))
        self.zero, self.one = (
            nn.Buffer(torch.zeros(1, 1, 1, 1, 1, 1)),
            nn.Buffer(torch.ones(1, 1, 1, 1, 1, 1)),
        )

    @staticmethod
    def unit(pixels: Tensor) -> Tensor:
        return torch.ones_like(pixels)

    def forward(self, values: Tensor, offsets: Tensor, shares: Tensor) -> Tensor:
        batch, _, count, size = values.shape
        joined, points, width = batch * self.heads, LEVELS * POINTS, size // self.heads
        offsets = offsets.reshape(batch, count, 2, self.heads, 1, points).permute(0, 2, 3, 1, 4, 5)
        points_at = offsets + self.places
        near = torch.minimum(torch.maximum(points_at.floor(), self.zero), self.last)
        across, down = (
            (self.one - (points_at - near - self.pair).abs()).relu().split_with_sizes([1, 1], dim=1)
        )
        across = across * shares.transpose(1, 2).reshape(batch, 1, self.heads, count, 1, points)
        column, row = near.split_with_sizes([1, 1], dim=1)
        above = row * self.pitch + (column + self.first + self.pair)
        values = values.reshape(batch, count, self.heads, width).transpose(1, 2)
        values = values.reshape(joined, count, width)
        upper, lower = (
            (across * weight).reshape(joined, count, 1, 2 * points)
            @ gathered(values, place.reshape(joined, count * 2 * points, 1)).reshape(
                joined, count, 2 * points, width
            )
            for weight, place in zip(
                down.split_with_sizes([1, 1], dim=4), (above, above + self.pitch), strict=True
            )
        )
        total = (upper + lower).reshape(batch, self.heads, count, width)  # from N·heads×S×1×d
        return total.transpose(1, 2).reshape(batch, 1, count, size)


def per_point(levels: Tensor, axis: int) -> Tensor:
    """Repeat a value per level for each of the level's points."""
    return levels.repeat_interleave(POINTS, dim=axis)


def gathered(values: Tensor, places: Tensor) -> Tensor:
    """Give values[n, places[n, p, 0]] as N×P×d, of N×L×d and N×P×1; in ONNX it is one GatherND for any batch."""
    whole = places.to(torch.int64)
    if torch.compiler.is_exporting():
        shape = (values.shape[0], places.shape[1], values.shape[2])
        return torch.onnx.ops.symbolic(
            "GatherND", (values, whole), {"batch_dims": 1}, dtype=values.dtype, shape=shape
        )
    return values.gather(1, whole.expand(-1, -1, values.shape[2]))


class Plugin(nn.Module):
    """Exports TensorRT's plugin; outside an export `sampled_as_plugin` computes the same in PyTorch."""

    order = (0, 1, 2, 3)

    def __init__(self, sides: Sides, heads: int) -> None:
        super().__init__()
        self.heads, self.sides = heads, sides
        self.centres = nn.Buffer(centres(sides)[:, None].repeat(1, heads, LEVELS * POINTS))  # S×heads×(…, xy)
        self.maps = nn.Buffer(torch.tensor(list(sides), dtype=torch.int32))
        ends = torch.tensor([height * width for height, width in sides]).cumsum(0)
        self.first = nn.Buffer(torch.cat([ends.new_zeros(1), ends[:-1]]).to(torch.int32))

    @staticmethod
    def unit(pixels: Tensor) -> Tensor:
        return 1 / pixels

    def forward(self, values: Tensor, offsets: Tensor, shares: Tensor) -> Tensor:
        batch, _, count, size = values.shape
        offsets = offsets.reshape(batch, count, self.heads, LEVELS * POINTS * 2)
        places = (offsets + self.centres).reshape(batch, count, self.heads, LEVELS, POINTS, 2)
        shares = shares.reshape(batch, count, self.heads, LEVELS, POINTS)
        grouped = values.reshape(batch, count, self.heads, size // self.heads)
        return self.attend(grouped, places, shares).reshape(batch, 1, count, size)

    def attend(self, values: Tensor, places: Tensor, shares: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            inputs = (values, self.maps, self.first, places, shares)
            operator = f"{PLUGIN_DOMAIN}::{PLUGIN}"
            return torch.onnx.ops.symbolic(
                operator, inputs, dtype=values.dtype, shape=values.shape, version=1
            )
        return sampled_as_plugin(values, places, shares, self.sides)


def sampled_as_plugin(values: Tensor, places: Tensor, shares: Tensor, sides: Sides) -> Tensor:
    """Compute the plugin's result N×S×heads×d in PyTorch."""
    batch, count, heads, width = values.shape
    levels = values.split_with_sizes([height * width for height, width in sides], dim=1)
    mixed = values.new_zeros(batch * heads, width, count)
    for level, (height, wide) in enumerate(sides):
        maps = levels[level].permute(0, 2, 3, 1).reshape(batch * heads, width, height, wide)
        grid = (2 * places[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        part = shares[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]
        mixed = mixed + (F.grid_sample(maps, grid, align_corners=False) * part).sum(-1)
    return mixed.reshape(batch, heads, width, count).permute(0, 3, 1, 2)
