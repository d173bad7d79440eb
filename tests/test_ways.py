"""Every way is measured in turn, compared with the graph, and the best one is kept for this machine alone."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segdeploy import machine
from segdeploy.assess.evaluate.models import EvaluationRequest, open_candidate
from segdeploy.cli import main
from segdeploy.convert import fp16
from segdeploy.errors import EngineError, GraphError, RequestError
from segdeploy.machine import MachineFacts
from segdeploy.model.engine import Profile
from segdeploy.model.record import read_record, record_path
from segdeploy.model.tuned import read_tuned, tuned_path
from segdeploy.prove import opening, precision
from segdeploy.prove.bounds import Bounds
from segdeploy.prove.opening import ChosenWay, choose_opening, open_session
from segdeploy.run.runtimes import RUNTIMES
from segdeploy.ways import forms as forms_module
from segdeploy.ways import speed as speed_module
from segdeploy.ways import tune as module
from segdeploy.ways.accuracy import Referee, WayCost, frames_in
from segdeploy.ways.choice import Measured, best_line, best_of, verdict_of
from segdeploy.ways.forms import FormMaker
from segdeploy.ways.request import TuneRequest
from segdeploy.ways.speed import Speed, measure_in_turn
from segdeploy.ways.steady import Yardstick
from segdeploy.ways.tune import tune
from segdeploy.ways.way import NO_GPU, Form, LeftOut, Way, for_many_images, for_one_image, ways_here

CPU, OPENVINO, CUDA, _, ENGINE, *_ = RUNTIMES
HERE = MachineFacts("Abacus", "kind", 2)


@pytest.fixture(autouse=True)
def this_machine_is_small(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(precision.BOUNDS, "int8", Bounds(0.8))
    for one in (module, opening):
        monkeypatch.setattr(one, "this_machine", lambda: HERE)
    monkeypatch.setattr(module, "ways_here", lambda forms, machine, goal: as_fast(forms))
    monkeypatch.setattr(speed_module, "TURN_S", 0.001)


def as_fast(forms):
    """ONNX Runtime alone, which every machine of ours has, and one more way that is left out."""
    yield Way(forms[0].path, CPU, "f32", 1)
    yield LeftOut("bf16 in OpenVINO", "this CPU has none")
    for form in forms[1:]:
        yield Way(form.path, CPU, form.precision, 1)


@pytest.fixture
def graph(graphs, tmp_path):
    for path in (graphs("frames"), graphs("frames").with_name(graphs("frames").name + ".json")):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / graphs("frames").name


def steady(*readings):
    values = iter([1.0, *readings])
    return Yardstick(lambda: next(values, 1.0))


def quick(graph, **more):
    return TuneRequest(graph, seconds=0.001, **more)


def tuned(request):
    return tune(request, yardstick=steady())


# ---- the choice ------------------------------------------------------------------------------------------------


def measured(words, ms, drop, first=100.0):
    way = Way(Path("x.onnx"), OPENVINO, words, 2)
    return Measured(way, Speed(ms, ms, first / ms, 1, 2, None), WayCost(drop, None, 1.0, 0.5))


F32, BF16, INT8 = measured("f32", 100, 0), measured("bf16", 55, 0.0), measured("int8", 54, 0.4)


@pytest.mark.parametrize(
    ("ways", "allowed", "best"),
    [
        ([F32], 0, F32),
        ([F32, BF16, INT8], 0.5, BF16),  # int8 is hardly faster
        ([F32, BF16, measured("int8", 40, 0.4)], 0.5, None),
        ([F32, BF16, measured("int8", 40, 0.4)], 0.3, BF16),
        ([F32, measured("bf16", 99, 0.3)], 0.5, F32),
        ([F32, measured("bf16", 90, -0.3)], 0, None),  # a gain is no loss
        ([measured("f32", 100, 0.1), measured("int8", 10, 0.6)], 0, None),  # the graph itself is always allowed
    ],
)  # fmt: skip
def test_the_fastest_within_the_loss_unless_a_like_one_loses_less(ways, allowed, best):
    expected = best or (ways[-1] if ways[0].cost.drop == 0 else ways[0])
    assert best_of(ways, allowed) is expected


def test_the_line_holds_what_nothing_beats():
    slow = measured("int8", 120, 0.1)
    assert best_line([F32, BF16, INT8, slow]) == [INT8, BF16]


def test_the_verdict_is_one_sentence():
    unit = "points of mIoU lost"
    assert verdict_of([F32, BF16, INT8], BF16, 0.5, unit) == (
        "bf16 in OpenVINO with 2 threads: 1.82 times as fast as f32 in OpenVINO with 2 threads, 0.00 points of mIoU"
        " lost; int8 in OpenVINO with 2 threads is 2 % faster, 0.40 points of mIoU lost: take bf16"
    )
    assert verdict_of([F32, INT8], F32, 0.1, unit) == (
        "f32 in OpenVINO with 2 threads, as the graph is exported, is the best within the allowed loss; int8 in"
        " OpenVINO with 2 threads is 85 % faster, 0.40 points of mIoU lost: more than the 0.1 allowed"
    )


# ---- the ways --------------------------------------------------------------------------------------------------


def test_what_this_machine_has(monkeypatch):
    pytest.importorskip("openvino", reason="openvino is not installed")
    monkeypatch.setattr("segdeploy.run.openvino.precisions_here", lambda: ["f32", "int8"])
    found = list(ways_here([Form("fp32", Path("a.onnx")), Form("int8", Path("b.onnx"))], HERE))
    said = [one.words for one in found]
    assert said[0] == "f32 in ONNX Runtime with 2 threads"
    assert "int8 in OpenVINO with 1 thread" in said
    left = {one.words: one.why for one in found if isinstance(one, LeftOut)}
    assert "bf16 is not computed by this CPU" in left["bf16 in OpenVINO"]
    assert left["ONNX Runtime on the GPU"] == NO_GPU


def test_what_is_worth_measuring_on_so_many_cores():
    assert [for_one_image(cores) for cores in (1, 2, 3, 64)] == [
        [(1, 1)], [(2, 1), (1, 1)], [(3, 1), (1, 1)], [(64, 1), (32, 1)]
    ]  # fmt: skip
    assert [for_many_images(cores) for cores in (1, 2, 3, 4, 64)] == [
        [(1, 1)], [(2, 1), (1, 2)], [(3, 1), (1, 2), (1, 3)], [(4, 1), (2, 2), (1, 4)], [(64, 1), (32, 2), (1, 64)]
    ]  # fmt: skip


def test_for_throughput_there_are_streams(monkeypatch):
    found = list(ways_here([Form("fp32", Path("a.onnx"))], HERE, "throughput"))
    said = [one.words for one in found]
    assert said[:2] == [
        "f32 in ONNX Runtime with 2 threads",
        "f32 in ONNX Runtime with 2 streams of 1 thread",
    ]
    assert found[1].opening == ChosenWay(Path("a.onnx"), 1, "cpu", "f32", tuned=True, streams=2)


def test_for_throughput_an_engine_takes_several_images_where_its_graph_does(
    graph, with_gpu, tmp_path, monkeypatch
):
    asked = []

    def built(source, request, *, output):
        asked.append(request.engine.profile)
        return SimpleNamespace(path=output / f"{len(asked)}.engine")

    monkeypatch.setattr(forms_module, "build_proven", built)
    for goal, batch, profiles in (
        ("throughput", None, [None, Profile(1, 8, 8)]), ("latency", None, [None]), ("throughput", 1, [None]),
    ):  # fmt: skip
        asked.clear()
        of_graph = SimpleNamespace(signature=SimpleNamespace(batch=batch))
        maker = FormMaker(of_graph, quick(graph, goal=goal), with_gpu, tmp_path)
        engines = maker.engines_of([Form("fp32", graph)])
        assert (asked, maker.left_out) == (profiles, [])
        assert [form.batch for form in engines] == [1 if one is None else 8 for one in profiles]
    many = [Form("fp32", graph), Form("fp16", tmp_path / "x.engine", 8)]
    assert [one.words for one in ways_here(many, with_gpu) if one.words.startswith("fp16")] == [
        "fp16 in TensorRT on the GPU, 8 at once"
    ]


@pytest.mark.slow
def test_several_callers_are_measured_at_once_and_counted_in_order(graph):
    """Each of two streams has a caller of its own, so none waits for the other."""
    asking, most = [], []

    class Counting:
        signature = SimpleNamespace(batch=1)

        def __getattr__(self, name):
            return getattr(self.session, name)

        def run(self, inputs):
            asking.append(1)
            most.append(len(asking))
            try:
                time.sleep(0.002)
                return self.session.run(inputs)
            finally:
                asking.pop()

    counting = Counting()
    with open_session(graph, threads=1) as session:
        counting.session, counting.signature = session, session.signature
        frame = np.zeros((96, 160, 3), np.uint8)
        way = Way(graph, CPU, "f32", 1, streams=2)
        measure_in_turn([(way, counting)], frame, goal="throughput", seconds=0.001, yardstick=steady())
        assert max(most) == 2
        most.clear()
        way = replace(way, streams=1)
        measure_in_turn([(way, counting)], frame, goal="throughput", seconds=0.001, yardstick=steady())
        assert max(most) == 1


@pytest.mark.slow
def test_a_choice_of_streams_is_for_verbs_with_several_callers(graph):
    choice = tuned(quick(graph)).choice
    replace(choice, way=replace(choice.way, threads=3, streams=4)).write(graph.parent)
    many = choose_opening(graph, several_callers=True)
    assert (many.threads, many.streams, many.words) == (3, 4, f"{graph.name} cpu f32 4 streams of 3 threads")
    told = []
    one = choose_opening(graph, tell=told.append)
    assert (one.threads, one.streams) == (12, 1)
    assert told[0].endswith(", all of them on one image here; --as-exported runs the graph itself")


def test_a_gpu_whose_provider_is_not_installed(monkeypatch):
    found = list(ways_here([Form("fp32", Path("a.onnx"))], replace(HERE, gpus=("T4",))))
    left = {one.words: one.why for one in found if isinstance(one, LeftOut)}
    assert "onnxruntime-gpu" in left["ONNX Runtime on the GPU"]
    monkeypatch.setattr("segdeploy.run.ort.demand_provider", lambda provider: "")
    found = list(ways_here([Form("fp32", Path("a.onnx"))], replace(HERE, gpus=("T4",))))
    (cuda,) = (one for one in found if isinstance(one, Way) and one.runtime is CUDA)
    assert (cuda.words, cuda.threads, cuda.opening.precision) == (
        "fp32 in ONNX Runtime on the GPU",
        None,
        None,
    )


def test_a_runtime_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("segdeploy.ways.way.RUNTIMES", (replace(OPENVINO, module="segdeploy_no_such"),))
    assert list(ways_here([Form("fp32", Path("a.onnx"))], HERE)) == [
        LeftOut("OpenVINO on the CPU", "openvino is not installed: pip install 'segdeploy[openvino]'")
    ]


# ---- measuring -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_slow_round_is_repeated_and_said(graph):
    way = Way(graph, CPU, "f32", 1)
    frame = np.zeros((96, 160, 3), np.uint8)
    with open_session(graph, threads=1) as session:
        sessions = [(way, session)]
        speeds, clock = measure_in_turn(sessions, frame, goal="latency", seconds=0.001, yardstick=steady())
        assert (speeds[0].ratio, clock.warnings, clock.unsteady) == (1.0, [], False)
        assert speeds[0].whole_ms > 0 < speeds[0].network_ms
        _, clock = measure_in_turn(
            sessions, frame, goal="throughput", seconds=0.001, yardstick=steady(1, 1, 1.5, 1)
        )
        assert not clock.unsteady
        assert clock.warnings == [
            "the processor was slowed down while it was measured, by up to 50 %: 1 rounds were repeated"
        ]
        _, clock = measure_in_turn(sessions, frame, goal="latency", seconds=0.001, yardstick=hot())
        assert clock.unsteady
        assert (
            "10 rounds were repeated, and later ones counted all the same, so the choice is marked"
            in (clock.warnings[0])
        )


def hot():
    return Yardstick(iter([1.0, *[2.0] * 99]).__next__)


@pytest.mark.slow
def test_a_choice_that_was_measured_on_a_slowed_processor_says_so_whenever_it_is_taken(graph):
    done = tune(TuneRequest(graph, seconds=0.001), yardstick=hot())
    assert done.choice.unsteady
    assert read_tuned(graph).unsteady
    said = []
    open_session(graph, tell=said.append).close()
    assert said[1] == (
        f"the processor was slowed down while {graph.name} was tuned, so another way may be faster; when the machine is"
        f" cool and quiet: segdeploy tune {graph}"
    )
    tune(TuneRequest(graph, seconds=0.001), yardstick=steady())
    said.clear()
    open_session(graph, tell=said.append).close()
    assert len(said) == 1


@pytest.mark.slow
def test_processes_that_count_say_that_they_leave_the_tuned_way_out(graph):
    tuned(quick(graph))
    said, dataset = [], SimpleNamespace(pairs=(), digest="d")
    asked = EvaluationRequest((graph,), dataset, processes=2, tell=said.append)
    for request in (asked, replace(asked, as_exported=True), replace(asked, provider="cpu")):
        with open_candidate(request, "x", graph) as candidate:
            assert candidate.way == "cpu"
    assert said == [
        f"{graph.name} was tuned, and several processes count with the graph as it was exported; to score it as it was"
        " tuned, leave --processes and --ray out"
    ]


def test_the_arithmetic_takes_processor_time():
    assert 0 < Yardstick()._fastest < 1


# ---- the whole -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_frames_only_the_graphs_own_precision_is_measured(graph, capsys):
    assert main(["tune", str(graph), "--duration", "0.001"]) == 0
    said = capsys.readouterr().out
    assert "not measured: bf16 and int8: no frames were given to compare them on: --images DIR" in said
    assert f"kept beside the graph for this machine ({HERE}): run, evaluate and bench take it" in said
    choice = read_tuned(graph)
    assert (choice.way.model, choice.way.precision, choice.way.threads) == (graph.name, "f32", 1)
    assert choice.machine == HERE


@pytest.mark.slow
def test_int8_is_made_compared_chosen_and_run(graph, int8, images, tmp_path, monkeypatch, capsys):
    asked = []

    def quantised(source, request, *, output, progress):
        asked.append(request.images)
        for path in (int8, int8.with_name(int8.name + ".json")):
            shutil.copy(path, output / path.name)
        return replace_path(output / int8.name)

    monkeypatch.setattr(forms_module, "quantize", quantised)
    monkeypatch.setattr(module, "best_of", lambda measured, limit: measured[-1])
    frames = frames_in(images, 2)
    done = tuned(quick(graph, frames=frames, output=tmp_path / "all"))
    assert asked == [images]
    assert (done.compared_on, done.unit) == (2, "% of the labels changed")
    assert done.measured[0].cost.drop < 0.1 < done.measured[1].cost.drop  # a network of random weights
    chosen = graph.with_name(int8.name)
    assert read_tuned(graph).way.model == chosen.name
    assert chosen.read_bytes() == int8.read_bytes()
    report = json.loads((tmp_path / "all" / "tuned.json").read_text())
    assert [one["precision"] for one in report["ways"]] == ["f32", "int8"]
    assert (tmp_path / "all" / int8.name).is_file()
    assert (
        "int8 may have been calibrated on frames that it is compared on, which flatters it" in done.warnings
    )

    again = FormMaker(module.read_graph(graph), quick(graph, frames=frames), HERE, tmp_path).forms()
    assert again[1] == Form("int8", chosen)  # not made a second time

    for arguments, tells in (([], True), (["--as-exported"], False), (["--threads", "1"], False)):
        capsys.readouterr()
        assert main(["bench", str(graph), "--duration", "0.1", "--warmup", "1", *arguments]) == 0
        said = capsys.readouterr()
        assert (
            f"{graph.name} runs as it was tuned: int8 in ONNX Runtime with 1 thread;" in said.err
        ) is tells
        assert (f", as tuned ({chosen.name} cpu int8 1 threads)" in said.out) is tells
    with open_session(graph) as session:
        assert session.name == chosen.name
    chosen.write_bytes(b"other")
    with pytest.raises(
        Exception, match=r"which is gone or was changed since; tune again: segdeploy tune .*, or say"
    ):
        open_session(graph)
    open_session(graph, as_exported=True).close()


@pytest.fixture
def with_gpu(monkeypatch):
    """A machine whose driver shows a GPU and on which TensorRT-RTX builds, but where no engine can be opened."""
    machine = replace(HERE, gpus=("RTX 4090",))
    for one in (module, opening):
        monkeypatch.setattr(one, "this_machine", lambda: machine)
    monkeypatch.setattr(forms_module, "open_flavour", lambda: None)
    return machine


@pytest.mark.slow
@pytest.mark.thorough
def test_on_a_gpu_each_precision_becomes_an_engine(graph, int8, images, tmp_path, with_gpu, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="pip install 'segdeploy[rtx]'")
    for path in (int8, int8.with_name(int8.name + ".json")):
        shutil.copy(path, graph.parent)
    monkeypatch.setattr(fp16, "bounds_of_graph", lambda precision, card: Bounds(0.9))  # of random weights
    monkeypatch.setattr(forms_module, "quantised_in", lambda folder, graph: graph.path.parent / int8.name)
    maker = FormMaker(
        module.read_graph(graph), quick(graph, frames=frames_in(images, 2)), with_gpu, tmp_path / "made"
    )
    (tmp_path / "made").mkdir()
    made = maker.forms()
    assert maker.left_out == []
    assert [(form.precision, form.path.suffix) for form in made] == [
        (precision, suffix)
        for suffix in (".onnx", ".engine")
        for precision in ("fp32", "int8", "fp16", "int8+fp16")
    ]
    assert [read_record(form.path).precision for form in made[4:]] == [form.precision for form in made[4:]]
    engines = [one for one in ways_here(made, with_gpu) if one.words.endswith("in TensorRT on the GPU")]
    assert [way.precision for way in engines] == [form.precision for form in made[4:]]
    assert engines[0].opening == ChosenWay(made[4].path, tuned=True)


@pytest.mark.slow
def test_a_chosen_engine_comes_to_lie_beside_its_graph(graph, images, with_gpu, monkeypatch):
    def built(source, request, *, output):
        path = output / f"{source.path.stem}.engine"
        path.write_bytes(b"an engine")
        record_path(path).write_text("its record")
        return SimpleNamespace(path=path)

    monkeypatch.setattr(forms_module, "build_proven", built)
    monkeypatch.setattr(FormMaker, "made_in", only_engines(FormMaker.made_in))
    monkeypatch.setattr(module, "ways_here", ways_here)
    monkeypatch.setattr("segdeploy.ways.way.RUNTIMES", (CPU, ENGINE))
    really = module.open_chosen
    monkeypatch.setattr(
        module,
        "open_chosen",
        lambda way, card: really(ChosenWay(graph) if way.path.suffix == ".engine" else way, card=card),
    )
    monkeypatch.setattr(module, "best_of", lambda measured, limit: measured[-1])
    assert "bf16, int8 and what a GPU computes" in [one.words for one in tuned(quick(graph)).left_out]
    done = tuned(quick(graph, frames=frames_in(images, 1)))
    assert done.choice.way.words == "fp32 in TensorRT on the GPU"
    chosen = graph.with_suffix(".engine")
    assert (chosen.read_bytes(), record_path(chosen).read_text()) == (b"an engine", "its record")
    assert choose_opening(graph) == ChosenWay(chosen, tuned=True)


def only_engines(made_in):
    """Make no INT8 and no FP16, which other tests do."""
    return lambda self, precision, make, where="", **more: (
        made_in(self, precision, make, where, **more) if where else []
    )


def test_a_gpu_without_tensorrt_or_whose_engine_fails_is_said(graph, with_gpu, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise EngineError("no room")

    monkeypatch.setattr(forms_module, "build_proven", refused)
    maker = FormMaker(module.read_graph(graph), quick(graph), with_gpu, tmp_path)
    assert maker.engines_of(maker.forms()) == []
    assert maker.left_out[1] == LeftOut("fp32 in TensorRT on the GPU", "no room")
    monkeypatch.setattr(forms_module, "open_flavour", refused)
    assert maker.engines_of([]) == []
    assert maker.left_out[2] == LeftOut("TensorRT on the GPU", "no room")


def replace_path(path):
    return type("Made", (), {"path": path})()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"machine": MachineFacts("Beads", "k", 1)}, "on another machine (Beads, 1 core; this is Abacus, 2 cores)"),
        ({"versions": {"onnxruntime": "0.1"}}, "with other versions (onnxruntime, segdeploy)"),
        ({"digest": "0" * 64}, "of another graph, which lay here under this name"),
    ],
)  # fmt: skip
def test_a_choice_of_another_machine_is_said_and_not_taken(graph, change, said):
    replace(tuned(quick(graph)).choice, **change).write(graph.parent)
    told = []
    assert not choose_opening(graph, tell=told.append).tuned
    assert told == [
        f"{graph.name} was tuned {said}, so it runs as exported; tune it for what is here: segdeploy tune {graph}"
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"graph": "../x"}', '{"schema": 9}'])
def test_a_choice_that_cannot_be_read_is_refused(graph, text, capsys):
    tuned_path(graph).write_text(text)
    assert main(["bench", str(graph), "--duration", "0.01"]) == 1
    said = capsys.readouterr().err
    assert f"{tuned_path(graph)} is not a choice of `segdeploy tune` that can be read" in said
    assert "tune again, or remove it" in said


def test_a_stopped_tune_keeps_nothing(graph, monkeypatch, tmp_path):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measure_in_turn", stopped)
    before = sorted(tmp_path.iterdir())
    assert main(["tune", str(graph), "-o", str(tmp_path / "out")]) == 130
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_a_way_that_does_not_open_is_left_out(graph, monkeypatch):
    found = [Way(graph, CPU, "f32", 1), Way(graph.with_name("gone.onnx"), CPU, "f32", 1)]
    monkeypatch.setattr(module, "ways_here", lambda forms, machine, goal: found)
    (left,) = (one for one in tuned(quick(graph)).left_out if "no file" in one.why)
    assert left.words == "f32 in ONNX Runtime with 1 thread"
    monkeypatch.setattr(module, "ways_here", lambda forms, machine, goal: found[1:])
    with pytest.raises(RequestError, match="nothing here computes"):
        tuned(quick(graph))


@pytest.mark.slow
@pytest.mark.thorough
def test_loss_is_in_miou_where_there_is_truth(bundled, tmp_path):
    from segdeploy.datasets.layouts import open_dataset
    from segdeploy.scenes import write_cityscapes
    from segdeploy.ways.accuracy import JudgedFrames

    write_cityscapes(tmp_path, 3, seed=5, height=96, width=160)
    frames = JudgedFrames(dataset=open_dataset("cityscapes", tmp_path, "val", None))
    with open_session(bundled("frames", "96x160")) as session:
        cost = Referee(session, frames, print).cost(session, "itself")
    assert (cost.drop, cost.interval, cost.agreement) == (0.0, (0.0, 0.0), 1.0)
    assert 0.2 < cost.miou < 1


@pytest.mark.slow
def test_bad_requests(graph, int8, refused, misused, tmp_path, images):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "tune the FP32 graph that it was made from" in refused("tune", int8)
    assert f"{empty} holds no image" in refused("tune", graph, "--images", empty)
    assert "leave one out" in refused("tune", graph, "--images", images, "--dataset", "cityscapes")
    assert "--root is of a labelled data set" in refused("tune", graph, "--root", images)
    assert "needs --root DIR" in refused("tune", graph, "--dataset", "cityscapes")
    assert "there is no file" in refused("tune", tmp_path / "gone.onnx")
    assert "invalid choice: 'fun'" in misused("tune", graph, "--for", "fun")
    assert "argument --max-drop: -1 is outside" in misused("tune", graph, "--max-drop", "-1")


def test_a_graph_with_open_sides(graph):
    whole = module.read_graph(graph)
    shape = whole.signature.input._replace(shape=(1, None, 160, 3))
    with pytest.raises(
        GraphError, match=r"has open sides, and each size has a best way of its own; .* --size HxW"
    ):
        module.demand_tunable(replace(whole, signature=replace(whole.signature, input=shape)))


def test_the_machine_that_is_asked_is_this_one():
    assert machine.this_machine().cpu == machine.cpu_model()
