"""FLOPs are counted as fvcore counts them, and are those that the CV-3315 report says."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segdeploy.size import Size

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def flops(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import flops

    return flops


@pytest.mark.slow
@pytest.mark.parametrize("name", ["baseline (basicnet)", "SegFormer B0", "Swin-T + SegFormer", "PSPNet R18"])
def test_rows_are_those_of_the_report(name, flops):
    said, size, make = next(row[1:] for row in flops.ROWS if row[0] == name)
    with torch.device("meta"):
        parts = make()
    row = flops.row_of(name, said, Size.parse(size), parts)
    assert row["counted_g"] == said
    results = json.loads((BENCHMARKS / "results/flops.cv3315.json").read_text())
    assert row == next(one for one in results["rows"] if one["network"] == name)


def test_each_step_counts_as_in_fvcore(flops):
    maps = torch.zeros(2, 4, 6, 8)
    steps = [
        (lambda: nn.Conv2d(4, 6, 3, 2, 1, groups=2)(maps), 2 * 6 * 2 * 9 * 3 * 4),
        (lambda: nn.ConvTranspose2d(4, 5, 4, 2)(maps), 2 * 4 * 5 * 16 * 6 * 8),
        (lambda: nn.Linear(8, 3)(maps), 2 * 4 * 6 * 8 * 3),
        (lambda: maps @ maps.transpose(2, 3), 2 * 4 * 6 * 6 * 8),
        (lambda: nn.BatchNorm2d(4).eval()(maps), 2 * maps.numel()),
        (lambda: nn.LayerNorm(8)(maps), 5 * maps.numel()),
        (lambda: F.interpolate(maps, (5, 7), mode="bilinear"), 4 * 2 * 4 * 5 * 7),
        (lambda: F.adaptive_avg_pool2d(maps, 3), maps.numel()),
        (lambda: F.gelu(maps.softmax(-1).relu() + maps), 0),
    ]
    for step, expected in steps:
        with torch.no_grad(), flops.Counter() as counter:
            step()
        assert counter.total == expected
