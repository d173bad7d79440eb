"""Scales for attention's products: chosen so that sums of many small shares hold, and kept only if the labels do."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from segdeploy.convert.int8 import attention as module
from segdeploy.convert.int8.attention import attention_scales, threshold_of_shares
from segdeploy.convert.int8.histogram import Histogram
from segdeploy.graph.attention import operands_of_attention, outputs_of_softmax
from segdeploy.graph.load import read_graph
from segdeploy.graph.view import View
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.judge import Verdict


def rows(keys, sharpness, count=400):
    scores = np.random.default_rng(0).normal(0, sharpness, (count, keys))
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return (shares / shares.sum(1, keepdims=True)).astype(np.float32)


def error_of_rows(shares, threshold):
    """How far a row's sum is off, as it is quantised with that threshold."""
    scale = threshold / 255
    stored = np.minimum(np.rint(shares / scale), 255) * scale
    return float(np.sqrt(np.mean((stored - shares).sum(1) ** 2)))


def counted(shares):
    histogram = Histogram()
    histogram.add(shares)
    return histogram


@pytest.mark.parametrize(("keys", "sharpness"), [(8, 3.0), (128, 1.0), (512, 0.5), (512, 2.0), (2048, 1.0)])
def test_a_softmax_is_cut_where_its_rows_are_least_wrong(keys, sharpness):
    shares = rows(keys, sharpness)
    found = threshold_of_shares(counted(shares), keys)
    best = min(error_of_rows(shares, shares.max() * part) for part in np.geomspace(1 / 64, 1, 49))
    assert error_of_rows(shares, found) <= 1.5 * best + 1e-4
    assert error_of_rows(shares, found) <= error_of_rows(shares, 1.0) + 1e-6


def test_many_small_shares_ask_for_finer_steps_than_few_large_ones():
    assert threshold_of_shares(counted(rows(512, 0.5)), 512) < 0.1
    assert threshold_of_shares(counted(rows(8, 3.0)), 8) > 0.7


def test_a_softmax_that_was_never_seen_has_no_threshold():
    assert threshold_of_shares(Histogram(), 8) == 0


@pytest.fixture
def calibrated(graphs):
    model = onnx.load(graphs("frames"))
    return SimpleNamespace(
        model=model, graph=lambda keep: model, verdict=lambda judge, keep: judge.verdict(model)
    )


def job_that_sees(changes, monkeypatch, **request):
    """A job whose judge sees so many labels of 1000 changed, without attention and with each choice of products."""
    seen = iter(changes)
    asked = SimpleNamespace(**{"fp16": False, "scales": None} | request)
    tried = []
    monkeypatch.setattr(module, "measured_scales", lambda job, model, operands: dict.fromkeys(operands, 0.5))
    monkeypatch.setattr(module, "quantise_attention", lambda model, scales: tried.append(set(scales)))
    job = SimpleNamespace(
        request=asked,
        judge=SimpleNamespace(verdict=lambda model: next(seen)),
        few=SimpleNamespace(changes=lambda model: [next(seen)], own=Verdict(Agreement(1, 1000, 1000, 0.0))),
        on_few=lambda verdict: [verdict],
        progress=lambda words: None,
    )
    return job, tried


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ([20, 29], "all"), ([20, 31, 30], "scores"), ([20, 500, 500, 21], "mixing"), ([20, 500, 500, 500], "none"),
    ],
)  # fmt: skip
def test_only_products_that_keep_the_labels_have_scales(changes, kept, calibrated, monkeypatch):
    job, tried = job_that_sees(changes, monkeypatch)
    view = View(calibrated.model)
    every = {name for both in operands_of_attention(view).values() for name in both}
    shares = outputs_of_softmax(view)
    mixing = {name for both in operands_of_attention(view).values() if shares & set(both) for name in both}
    expected = {"all": every, "scores": every - mixing, "mixing": mixing, "none": set()}[kept]
    assert set(attention_scales(job, calibrated, ())) == expected
    assert tried[0] == every


def test_fp16_has_none_and_a_cache_of_tensorrt_neither(calibrated, monkeypatch, tmp_path):
    job, _ = job_that_sees([], monkeypatch, fp16=True)
    assert attention_scales(job, calibrated, ()) == {}
    job, _ = job_that_sees([0, 0, 0, 0], monkeypatch, scales=tmp_path / "x.calib")
    assert attention_scales(job, calibrated, ()) == {}


def test_keys_that_are_not_known_leave_a_softmax_without_a_scale(graphs, images, monkeypatch):
    model = onnx.load(graphs("frames"))
    operands = sorted({name for both in operands_of_attention(View(model)).values() for name in both})
    shares = outputs_of_softmax(View(model))
    images = sorted(images.rglob("*.png"))[:2]
    job = SimpleNamespace(
        signature=read_graph(graphs("frames")).signature,
        material=SimpleNamespace(images=images),
        progress=lambda words: None,
    )
    assert shares <= module.measured_scales(job, model, operands).keys()
    known = View.shapes.func
    monkeypatch.setattr(
        View, "shapes", property(lambda view: {n: s for n, s in known(view).items() if n not in shares})
    )
    found = module.measured_scales(job, model, operands)
    assert found
    assert not shares & found.keys()
