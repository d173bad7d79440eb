"""How much of what may be lost a quantisation has spent: by mIoU, by pixel accuracy, or by labels without truth."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper

from segdeploy.convert.int8 import job as job_module
from segdeploy.convert.int8 import layer_choice
from segdeploy.convert.int8 import scales as scales_module
from segdeploy.convert.int8.collect import CalibrationKey
from segdeploy.convert.int8.histogram import Histogram
from segdeploy.convert.int8.job import (
    ACCURACY_SHARE,
    FEW,
    MAX_DISAGREEMENT,
    MAX_DROP,
    Calibrated,
    Job,
    Request,
    scales_of,
)
from segdeploy.convert.int8.layer_choice import RANKED_ON
from segdeploy.convert.int8.scales import calibrate
from segdeploy.graph.layers import Layer
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.confusion import Confusion
from segdeploy.prove.judge import ProbeCounts, Verdict


def verdict(*rows, equal=1.0):
    confusion = None
    if rows:
        confusion = Confusion(len(rows))
        confusion.counts[:, :-1] = rows
    return Verdict(Agreement(1, 10_000, round(10_000 * equal), 0.0), 0.0, confusion)


def spent(own, other, max_drop=None):
    judge, material = SimpleNamespace(own=own), SimpleNamespace(labels=own.confusion)
    job = Job(None, None, None, Request(max_drop=max_drop), material, judge, None, None, "", print)
    return job.spent(other)


def test_the_bounds_are_those_of_the_readme():
    assert (MAX_DROP, MAX_DISAGREEMENT, ACCURACY_SHARE) == (0.25, 3.0, 0.6)


def test_miou_where_it_is_nearer_to_its_limit():
    own, other = verdict((900, 0), (0, 100)), verdict((900, 0), (2, 98))
    lost = 100 * (1 - (900 / 902 + 98 / 100) / 2)
    assert spent(own, other, 2.0) == pytest.approx(lost / 2.0)
    assert spent(own, other) == pytest.approx(lost / 0.25)


def test_pixel_accuracy_where_that_is_nearer():
    """A class of 9000 pixels loses 90 of them to none of the classes, and its IoU as much; two small ones gain."""
    own = verdict((9000, 0, 0), (0, 50, 50), (0, 50, 50))
    other = verdict((8910, 0, 0), (0, 60, 40), (0, 40, 60))
    other.confusion.counts[0, -1] = 90
    assert other.miou > own.miou
    lost = 100 * (9100 - 9030) / 9200
    assert spent(own, other, 1.0) == pytest.approx(lost / 0.6)
    assert spent(own, other) == pytest.approx(lost / 0.15)


def test_labels_where_there_is_no_truth():
    assert spent(verdict(), verdict(equal=0.98)) == pytest.approx(2.0 / 3.0)
    assert spent(verdict(), verdict(equal=0.98), 1.0) == pytest.approx(2.0)


# ---- on some of the probes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "places"),
    [(3, [0, 1, 2]), (10, [*range(8)]), (20, [*range(0, 16, 2)]), (48, [*range(0, 48, 6)])],
)
def test_the_few_are_spread_over_all(count, places):
    judge, material = SimpleNamespace(on=list), SimpleNamespace(probes=[None] * count)
    job = Job(None, None, None, Request(), material, judge, None, None, "", print)
    assert job.few == places
    each = tuple(ProbeCounts(100 + place, 1000) for place in range(count))
    assert job.on_few(replace(verdict(), each=each)) == [100 + place for place in places]


@pytest.mark.parametrize(("asked", "probes"), [(True, FEW), (False, RANKED_ON)])
def test_groups_are_ranked_on_fewer_probes_than_a_sensitivity_that_is_asked_for(asked, probes, monkeypatch):
    class Few(list):
        probes = property(list)

        def on(self, places):
            return Few(self[place] for place in places)

    seen = []
    monkeypatch.setattr(layer_choice, "sensitivity", lambda job, one, group, judge: seen.append([*judge]))
    monkeypatch.setattr(layer_choice, "search", lambda sensitivities, judged, spent: "found")
    monkeypatch.setattr(Calibrated, "verdict", lambda self, judge, keep: None)
    job = SimpleNamespace(
        request=Request(sensitivity=asked),
        judge=None,
        few=Few(range(FEW)),
        spent=lambda verdict: 2,
        progress=lambda step: None,
    )
    found, sensitivities = layer_choice.searched(job, calibrated())
    assert (found, len(sensitivities)) == ("found", 3)
    assert seen == [[*range(probes)]] * 3


# ---- which thresholds are whose --------------------------------------------------------------------------------


def layer(name, root):
    return Layer(name, name, root, root, f"{name}.weight", 0, 10)


def calibrated(**more):
    layers = [layer("first", "a"), layer("second", "a"), layer("third", "b")]
    return Calibrated(None, layers, {}, {"a": 1.0, "b": 1.0}, **more)


def test_a_group_that_is_kept_out_may_still_say_how_its_tensor_was_found():
    """`second` reads the same tensor as `first`, in INT8; nothing in INT8 reads that of `third`."""
    found = calibrated(widened=("first", "third"))
    assert found.widened_inside(()) == ("first", "third")
    assert found.widened_inside(("first", "third")) == ("first",)
    assert found.widened_inside(("first", "second")) == ("third",)


def test_what_is_judged_is_rounded_as_a_gpu_rounds(monkeypatch):
    written, rounded = object(), object()
    monkeypatch.setattr(Calibrated, "graph", lambda self, keep: written)
    monkeypatch.setattr(job_module, "rounding", lambda model: rounded if model is written else None)
    assert calibrated(ranges={"a": 1.0}).as_computed(()) is rounded
    assert calibrated().as_computed(()) is written


def test_a_softmax_has_its_own_scale_and_pixels_their_whole_range():
    nodes = [helper.make_node("Softmax", ["x"], ["shares"]), helper.make_node("Relu", ["shares"], ["y"])]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph(nodes, "tiny", sides[:1], sides[1:]))
    histograms = {}
    for name, top in (("shares", 0.5), ("y", 0.5)):
        histograms[name] = Histogram()
        histograms[name].add(np.linspace(0, top, 4096, dtype=np.float32))
    scales = scales_of(model, histograms, "minmax")
    assert scales["shares"] == pytest.approx(1 / 127)
    assert scales["y"] == pytest.approx(0.5 / 127)


@pytest.mark.parametrize(("left", "taken"), [(0.79, True), (0.81, False)])
def test_equalising_has_to_be_worth_it(left, taken, monkeypatch):
    """It is taken where it leaves less than 0.8 of the labels that change without it."""
    plain, even = calibrated(method="plain"), calibrated(method="even")
    monkeypatch.setattr(scales_module, "norms_to_equalise", lambda model: {"norm": []})
    monkeypatch.setattr(scales_module, "factors_for", lambda model, peaks: {})
    monkeypatch.setattr(scales_module, "equalised", lambda model, factors: "balanced")
    monkeypatch.setattr(scales_module, "channel_peaks", lambda job: {})
    monkeypatch.setattr(scales_module, "with_equalised", lambda model, factors: ("both", {}))
    monkeypatch.setattr(scales_module, "roots_of", lambda model: set())
    monkeypatch.setattr(scales_module, "counted_values", lambda job, model, tensors: {})
    monkeypatch.setattr(
        scales_module, "scaled", lambda job, model, histograms: even if model == "balanced" else plain
    )
    monkeypatch.setattr(Calibrated, "as_computed", lambda self, keep: self)
    changes = {"plain": 1000, "even": round(1000 * left)}
    monkeypatch.setattr(
        Calibrated, "verdict", lambda self, judge, keep: SimpleNamespace(changes=[changes[self.method]] * 5)
    )
    judge = SimpleNamespace(changes=lambda one: iter([changes[one.method]] * 5))
    job = Job(None, None, "as it is", Request(), None, judge, None, None, "", lambda step: None)
    assert calibrate(job) == ((even, True) if taken else (plain, False))


def test_a_cache_that_names_what_a_layer_reads_behind_a_transpose(tmp_path, monkeypatch):
    """TensorRT's cache may know a tensor by the name that a layer reads, and not by where its values are made."""
    reading = replace(layer("first", "made"), activation="read")
    monkeypatch.setattr(scales_module, "layers_of", lambda model: [reading])
    cache = SimpleNamespace(scales={"read": 0.25}, tensorrt=scales_module.NO_VERSION)
    monkeypatch.setattr(scales_module, "read_scale_file", lambda path: cache)
    monkeypatch.setattr(scales_module, "demand_same", lambda path, key: None)
    job = Job(
        None, None, None, Request(), None, None, CalibrationKey("g", "p", "i"), None, "", lambda step: None
    )
    assert scales_module.read_scales(job, tmp_path / "x.cache").scales == {"made": 0.25}
    cache.scales["made"] = 0.5
    assert scales_module.read_scales(job, tmp_path / "x.cache").scales == {"made": 0.5}
