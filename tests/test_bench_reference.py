"""The shipped table to the letter, and ours laid beside it."""

import pytest

from segdeploy.assess.bench.reference import beside_published, published_lines, read_references
from segdeploy.devices import device_called, read_devices
from segdeploy.errors import RequestError


@pytest.fixture
def ngc():
    (one,) = [one for one in read_references() if one.title.startswith("NGC")]
    return one


def test_the_first_table_is_as_printed(ngc):
    assert [(row.device, row.batch, row.fps) for row in ngc.rows] == [
        ("a2", 16, 230),
        ("t4", 16, 374),
        ("a30", 16, 1098),
        ("l4", 4, 750),
        ("l40", 8, 1985),
        ("a100-80gb-sxm", 64, 2381),
        ("h100-sxm", 64, 4189),
    ]
    assert ngc.tables_not_read == 3


def test_every_device_is_one_of_ours(ngc):
    assert {row.device for row in ngc.rows} <= read_devices().keys()


def test_arithmetic_excludes_what_it_says(ngc):
    """A multiply-add is two operations; the plain B1 at 1024×1024 has 86.3 G of them, the B0 43.8 G."""
    peak = device_called("a2").peak("int8").value * 1e12
    assert 230 * 2 * 86.3e9 / peak == pytest.approx(1.10, abs=0.005)
    assert 230 * 2 * 43.8e9 / peak == pytest.approx(0.56, abs=0.005)
    assert "110 %" in ngc.excludes and "56 %" in ngc.excludes


def test_ours_is_laid_beside_at_the_nearest_batch(ngc):
    (row,) = beside_published(ngc, "NVIDIA L4", [(1, 100.0), (8, 375.0), (5, 300.0)])
    assert (row.batch, row.fps, row.ratio) == (5, 300.0, 0.4)
    assert beside_published(ngc, "h200-sxm", [(1, 100.0)]) == []


def test_what_is_said_names_the_doubts():
    number, doubts = published_lines("Tesla T4", [(16, 187.0)])
    assert "374 FPS at batch 16; here 187.0 FPS at batch 16, 0.50 times as many" in number
    for words in ("size not stated", "cannot be SegFormer-B1 or larger at 1024x1024", "3 further tables"):
        assert words in doubts


def test_other_devices():
    (line,) = published_lines("h200-sxm", [(1, 100.0)])
    assert "no row for H200 SXM; it has a2, t4, a30" in line
    assert published_lines("AMD EPYC", [(1, 5.0)]) == ["no published number for AMD EPYC is known"]


def test_nothing_measured(ngc):
    with pytest.raises(RequestError, match="nothing was measured"):
        beside_published(ngc, "t4", [])
