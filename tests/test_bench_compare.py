import itertools

import pytest
from bench_fakes import DeviceSession, HostSession

from segdeploy.assess.bench import compare as module
from segdeploy.assess.bench.compare import (
    compare,
    demand_alike,
    markdown_lines,
    queries_per_turn,
    summarise_rounds,
    told_apart,
    turn_ms,
)
from segdeploy.assess.bench.models import Opened
from segdeploy.assess.bench.modes import BenchPlan
from segdeploy.errors import RequestError
from segdeploy.size import Size

QUICK = BenchPlan(warm_up_ms=0, duration_s=0.01)


def opened(session, name="a.onnx"):
    return Opened(name, session, "a fake", "0" * 64, None)


def test_pairs_are_compared_not_medians():
    """The machine is twice as slow every other round: the times spread, the ratio does not."""
    rounds = [(10.0, 5.0), (20.0, 10.0), (10.0, 5.0), (20.0, 10.0), (12.0, 8.0)]
    models = [opened(HostSession(), "a.onnx"), opened(HostSession(), "b.onnx")]
    first, second = summarise_rounds(rounds, ["a.onnx", "b.onnx"], models, [2, 4])
    assert (first.ratio, first.ratio_low, first.ratio_high) == (1, 1, 1)
    assert (first.median_ms, second.median_ms) == (12, 8)
    assert (second.ratio_low, second.ratio, second.ratio_high) == (2, 2, 2)
    assert second.queries_per_turn == 4


def test_quartiles():
    rounds = [(ratio, 1.0) for ratio in (1.0, 2.0, 3.0, 4.0, 5.0)]
    models = [opened(HostSession()), opened(HostSession())]
    _, second = summarise_rounds(rounds, ["a", "b"], models, [1, 1])
    assert (second.ratio_low, second.ratio, second.ratio_high) == (2, 3, 4)


def test_models_take_turns(monkeypatch):
    monkeypatch.setattr(module, "TURN_MS", 0.0)  # one query a turn
    order = []
    models = []
    for name in ("a", "b", "c"):
        session = HostSession()
        ask = session.run
        session.run = lambda inputs, name=name, ask=ask: (order.append(name), ask(inputs))[1]
        models.append(opened(session, name))
    found = compare(models, 1, QUICK)
    assert order[:6] == ["a", "b", "c", "a", "b", "c"]  # once when opened, once to see how long a query takes
    turns = order[6:]
    assert len(turns) == 3 * found.rounds >= 30
    assert turns == ["a", "b", "c"] * found.rounds
    assert [row.model for row in found.rows] == ["a", "b", "c"]
    assert found.unlike == ()
    assert not found.stopped


@pytest.mark.slow
def test_a_device_keeps_two_queries_under_way():
    session = DeviceSession()
    found = compare([opened(session, "a.engine"), opened(HostSession(), "b.onnx")], 4, QUICK)
    assert found.ran["a.engine"]["clock"] == "device"
    assert found.ran["b.onnx"]["clock"] == "host"
    assert session.open_lanes == 0


class Slow:
    """Each query takes 4 ms of a clock that only it moves."""

    depth = 2

    def __init__(self, monkeypatch):
        self.seconds = 0.0
        self.under_way = self.most = self.finished = 0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.seconds)

    def start(self):
        self.under_way += 1
        self.most = max(self.most, self.under_way)

    def finish(self):
        self.seconds += 0.004
        self.under_way -= 1
        self.finished += 1


def test_a_turn_is_as_many_queries_as_fill_a_moment(monkeypatch):
    lane = Slow(monkeypatch)
    assert turn_ms(lane, 3) == pytest.approx(4)
    assert (lane.under_way, lane.most, lane.finished) == (0, 2, 3)
    assert queries_per_turn(lane, 10) == 5  # 20 ms
    assert lane.under_way == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"size": Size(128, 96)}, "size (a.onnx: 64x96, b.onnx: 128x96)"),
        ({"classes": 7}, "classes (a.onnx: 5, b.onnx: 7)"),
        ({"interface": "logits"}, "what they answer (a.onnx: labels, b.onnx: logits)"),
        (
            {"size": Size(128, 96), "classes": 7},
            "size (a.onnx: 64x96, b.onnx: 128x96) and in classes (a.onnx: 5, b.onnx: 7)",
        ),
    ],
)
def test_models_that_do_different_work_are_refused_unless_told(facts, said):
    models = [opened(HostSession(), "a.onnx"), opened(HostSession(**facts), "b.onnx")]
    with pytest.raises(RequestError) as caught:
        compare(models, 1, QUICK)
    assert str(caught.value) == (
        f"the models differ in {said}, so the faster one may just do less;"
        " compare models that do the same, or say --allow-unlike"
    )
    assert compare(models, 1, QUICK, allow_unlike=True).unlike == demand_alike(models, True) != ()


def test_a_batch_that_one_of_them_does_not_take():
    with pytest.raises(RequestError, match="a batch of 2 was asked for, and this model takes only 1"):
        compare([opened(HostSession()), opened(HostSession(batch=1))], 2, QUICK)


def test_a_stopped_comparison_is_of_the_whole_rounds(monkeypatch):
    monkeypatch.setattr(module, "TURN_MS", 0.0)
    sessions = [HostSession(), HostSession(stop_at=30)]
    found = compare([opened(session) for session in sessions], 1, BenchPlan(warm_up_ms=0, duration_s=60))
    assert found.stopped
    assert found.rounds == 30 - 2
    with pytest.raises(KeyboardInterrupt):
        compare([opened(HostSession()), opened(HostSession(stop_at=1))], 1, QUICK)


def test_markdown():
    models = [opened(HostSession(), "a.onnx"), opened(HostSession(), "b.onnx")]
    rows = summarise_rounds([(20.0, 10.0)] * 10, ["a.onnx", "b.onnx"], models, [1, 2])
    comparison = module.Comparison(4, 10, rows, {}, (), False)
    assert markdown_lines(comparison) == [
        "| batch 4, 10 rounds in turn | runtime | median ms | images/s | times as fast (quartiles) |",
        "|---|---|--:|--:|--:|",
        "| a.onnx | a fake | 20.00 | 200.0 | 1 |",
        "| b.onnx | a fake | 10.00 | 400.0 | 2.00 (2.00–2.00) |",
    ]


def test_models_of_one_name_are_told_apart():
    names = itertools.cycle(["a.onnx"])
    models = [opened(HostSession(), next(names)) for _ in range(2)] + [opened(HostSession(), "b.onnx")]
    assert told_apart(models) == ["a.onnx (1)", "a.onnx (2)", "b.onnx"]
