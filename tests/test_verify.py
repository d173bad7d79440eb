"""Engines that answer right and wrong, on the fake GPU, against a real graph's labels."""

import json
import sys
from dataclasses import replace

import onnxruntime
import pytest
from engine_records import facts_of_engine, record_of_engine
from fake_runtime import FakeDevice, fake_module, plan

from segdeploy import files, flavour
from segdeploy.cli import main
from segdeploy.errors import EngineDisagrees, EngineError, OutputError
from segdeploy.flavour import open_flavour
from segdeploy.graph.load import read_graph
from segdeploy.model.card import read_card
from segdeploy.model.engine import Binding, BuiltFrom, EngineOptions, EngineProof, Sampling, Verified
from segdeploy.model.record import ArtifactRecord, LedgerStep, read_record
from segdeploy.prove import golden, verify
from segdeploy.prove.agreement import Agreement
from segdeploy.run import cuda
from segdeploy.run.session import open_session


@pytest.fixture
def engine(graphs, tmp_path, monkeypatch):
    """`engine(spoil, profile)`: an engine that computes the tiny graph and then `spoil(answers)`."""
    graph = graphs("frames", None)
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    device = FakeDevice()
    monkeypatch.setattr(cuda, "open_device", lambda: device)
    monkeypatch.setattr(cuda, "why_no_gpu", lambda: None)
    monkeypatch.setattr(flavour, "is_installed", lambda name: name == "tensorrt")
    read = read_graph(graph)
    signature, frames = read.signature, golden.make_golden(read)

    def make(spoil=lambda answers: None, profile=(1, 2, 4), engine=(), **facts):
        def compute(given):
            (answers,) = session.run(None, {"frames": given})
            spoil(answers)
            return answers

        module = fake_module("10.16.1", device, {"tiny": compute})
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        path = tmp_path / "tiny.engine"
        batch = None if profile[0] != profile[2] else profile[0]
        bindings = [
            ["frames", "INPUT", "uint8", (batch, 96, 160, 3)],
            ["labels", "OUTPUT", "uint8", (batch, 96, 160)],
        ]
        path.write_bytes(plan("tiny", bindings, profile))
        built = facts_of_engine(path, signature, profile, graph=BuiltFrom("tiny.onnx", "ab"), golden=frames)
        record = record_of_engine(path, signature, replace(built, **dict(engine)), batch=batch)
        record = replace(record, **facts)
        record.write(tmp_path)
        return path, record

    yield make
    assert device.live == set()


@pytest.mark.slow
def test_an_engine_that_answers_right(engine):
    path, record = engine()
    assert verify.prove(path, record) == EngineProof("ONNX Runtime", 1.0, 1.0, (1, 2, 4), 3, "Test GPU")


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "batches"), [((1, 1, 1), (1,)), ((4, 4, 4), (4,)), ((2, 2, 4), (2, 4))])
def test_every_profile_point_and_no_other(profile, batches, engine):
    path, record = engine(profile=profile)
    assert verify.prove(path, record).batches == batches


def flip_slot(slot, batch, share=1.0):
    def spoil(answers):
        if len(answers) == batch:
            pixels = answers[slot].reshape(-1)[: round(share * answers[slot].size)]
            pixels[:] = (pixels + 1) % 5

    return spoil


@pytest.mark.slow
def test_one_wrong_slot_is_named_with_the_bug_that_fits(engine):
    path, record = engine(flip_slot(2, 4))
    with pytest.raises(EngineDisagrees) as refusal:
        verify.prove(path, record)
    assert str(refusal.value) == (
        "tiny.engine disagrees with tiny.onnx in slot 2 of batch 4 (1 of 7 slots are wrong): 0.0000% of 46,080 pixels"
        " equal over 3 inputs; demanded are 99.90% of the pixels. This fits NVIDIA/TensorRT#4853 (SegFormer with a"
        " batch above 1, TensorRT 10.11 to 11.1): build it with --batch 1"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 3), (1, 2), (2, 3)])
def test_slots_that_are_exchanged(first, second, engine):
    def exchange(answers):
        if len(answers) == 4:
            answers[[first, second]] = answers[[second, first]].copy()

    path, record = engine(exchange)
    with pytest.raises(
        EngineDisagrees, match=rf"in slot {first}|{second} of batch 4.*\(2 of 7 slots are below"
    ):
        verify.prove(path, record)


@pytest.mark.slow
def test_an_engine_that_is_wrong_alone_too_is_no_batch_bug(engine):
    path, record = engine(flip_slot(0, 1))
    with pytest.raises(
        EngineDisagrees, match=r"in slot 0 of batch 1 .* No known bug fits.*tensorrt 10\.16\.1"
    ):
        verify.prove(path, record)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "opset", "said"),
    [
        ("10.9.0", 20, "This fits NVIDIA/TensorRT#4646 (GridSample of opset 20, TensorRT 10.1 to 10.13): "),
        ("10.9.0", 19, "No known bug fits"),
        ("10.16.1", 17, "This fits NVIDIA/TensorRT#4813 (GridSample in deformable attention, TensorRT 10.13 to "),
        ("10.13.3", 20, "This fits NVIDIA/TensorRT#4813"),
        ("11.2.0", 20, "No known bug fits"),
    ],
)  # fmt: skip
def test_the_bugs_of_grid_sample(version, opset, said, engine):
    _, record = engine(engine={"version": version}, cost={"nodes": 9, "GridSample": 2}, opset=opset)
    wrong = [verify.Seen(1, 0, Agreement(1, 100, 10, None))]
    assert verify.remedy_for(wrong, wrong, record).startswith(said)


@pytest.mark.slow
def test_an_engine_of_gathers_has_no_bug_of_grid_sample(engine):
    _, record = engine(engine={"sampling": Sampling(2, "gather", "…")}, cost={"nodes": 9, "GridSample": 2})
    wrong = [verify.Seen(1, 0, Agreement(1, 100, 10, None))]
    assert verify.remedy_for(wrong, wrong, record).startswith("No known bug fits")
    built = {"sampling": Sampling(2, "gridsample", "…"), "options": EngineOptions(msda="gridsample")}
    _, record = engine(engine=built)  # a graph from elsewhere, of which nothing else is known
    assert verify.remedy_for(wrong, wrong, record).endswith(
        "10.13 to 11.1): build it without --msda gridsample"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "share", "passes"),
    [
        ("fp32", 0.02, False),
        ("fp16", 0.005, True),
        ("int8", 0.005, True),
        ("fp16", 0.03, False),
        ("int8", 0.03, False),
    ],
)
def test_bounds(precision, share, passes, engine):
    path, record = engine(flip_slot(1, 2, share), precision=precision)
    if precision == "fp32" or not passes:
        with pytest.raises(EngineDisagrees, match=r"99\.90%" if precision == "fp32" else r"99\.00%"):
            verify.prove(path, record)
    else:
        assert verify.prove(path, record).worst_slot < 1


@pytest.mark.slow
def test_a_cards_own_bound(engine, monkeypatch):
    path, record = engine(flip_slot(1, 2, 0.02), precision="fp16", card="segformer-b0-demo")
    with pytest.raises(EngineDisagrees, match=r"99\.00%"):
        verify.prove(path, record)
    card = replace(read_card("segformer-b0-demo"), min_pixel_agreement_fp16=0.97)
    monkeypatch.setattr(verify, "card_called", lambda name: card)
    assert verify.prove(path, record).worst_slot < 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "fits"), [("10.10.0", False), ("10.11.0", True), ("11.1.0", True), ("11.2.0", False)]
)
def test_a_bug_is_named_only_where_it_was_seen(version, fits, engine):
    _, record = engine(engine={"version": version})
    below = [verify.Seen(4, 2, Agreement(1, 100, 10, None))]
    seen = [verify.Seen(1, 0, Agreement(1, 100, 100, None)), *below]
    said = verify.remedy_for(below, seen, record)
    assert ("#4853" in said) is fits
    assert said.endswith("build it with --batch 1")
    rtx = replace(record, engine=replace(record.engine, flavour="tensorrt-rtx"))
    assert verify.remedy_for(below, seen, rtx) == "It is right at batch 1: build it with --batch 1"


@pytest.mark.slow
def test_a_batch_of_one_that_was_not_seen(engine):
    _, record = engine()
    below = [verify.Seen(4, 2, Agreement(1, 100, 10, None))]
    assert "Batch 1 was not seen: build it with --batch 1" in verify.remedy_for(below, below, record)
    bindings = (Binding("frames", "input", "uint8", (4, 96, 160, 3)),)
    fixed = replace(record, engine=replace(record.engine, bindings=bindings))
    said = verify.remedy_for(below, below, fixed)
    assert "was not seen: export the graph with --batch 1 and build that" in said
    assert "#" not in said


@pytest.mark.slow
def test_the_command(engine, capsys):
    path, _ = engine()
    assert main(["verify", str(path)]) == 0
    assert capsys.readouterr().out == (
        f"{path}: 100.0000% of the pixels as ONNX Runtime labels them (worst slot 100.0000%; batches of 1, 2, 4 on Test"
        " GPU)\n"
    )
    record = read_record(path)
    assert record.engine.verified == Verified(EngineProof("ONNX Runtime", 1.0, 1.0, (1, 2, 4), 3, "Test GPU"))
    step = LedgerStep("engine", "the graph in ONNX Runtime", 1.0)
    assert record.ledger == (step,)
    assert main(["verify", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batches"] == [1, 2, 4]
    assert read_record(path).ledger == (step,)  # it was proven twice, and is said once


@pytest.mark.slow
def test_the_command_on_drift(engine, capsys):
    path, _ = engine(flip_slot(2, 4))
    assert main(["verify", str(path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("segdeploy: tiny.engine disagrees with tiny.onnx in slot 2 of batch 4")
    verified = read_record(path).engine.verified
    assert verified.proof is None
    assert verified.disagrees is True
    assert "#4853" in verified.why
    assert "Its record is marked, and segdeploy will not run it. Rebuild it: segdeploy" in said.err
    assert path.is_file()
    with pytest.raises(EngineError, match=r"was compared with its graph, and is wrong: .*#4853"):
        open_session(path)
    assert main(["inspect", str(path)]) == 0
    assert "verified  the engine is wrong and is not run: tiny.engine disagrees" in capsys.readouterr().out


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_does_not_lose_the_result(engine, capsys, monkeypatch):
    def refuse(self, folder):
        raise OutputError("the folder is not writable")

    path, _ = engine()
    monkeypatch.setattr(ArtifactRecord, "write", refuse)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # so there is no lock to take either
    assert main(["verify", str(path)]) == 1
    said = capsys.readouterr()
    assert "100.0000% of the pixels as ONNX Runtime labels them" in said.out
    assert said.err == "segdeploy: the folder is not writable\n"


@pytest.mark.slow
def test_a_wrong_engine_in_a_folder_that_cannot_be_written(engine, capsys, monkeypatch):
    def refuse(self, folder):
        raise OutputError("the folder is not writable")

    path, _ = engine(flip_slot(2, 4))
    monkeypatch.setattr(ArtifactRecord, "write", refuse)
    assert main(["verify", str(path)]) == 1
    said = capsys.readouterr().err
    assert "disagrees with tiny.onnx in slot 2 of batch 4" in said
    assert "its record could not be marked (the folder is not writable)" in said


@pytest.mark.slow
def test_verify_waits_for_no_build_and_disturbs_none(engine, capsys):
    path, _ = engine()
    with files.locked(path):
        assert main(["verify", str(path)]) == 1
    assert "is being written by another segdeploy" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_where_it_cannot_run(engine, capsys, monkeypatch):
    path, record = engine()

    def none():
        raise EngineError("an engine runs on an NVIDIA GPU, and there is no GPU")

    monkeypatch.setattr(cuda, "open_device", none)
    assert main(["verify", str(path)]) == 1
    assert capsys.readouterr().err == "segdeploy: an engine runs on an NVIDIA GPU, and there is no GPU\n"
    assert read_record(path) == record
    assert main(["verify", str(path.with_name("gone.engine"))]) == 1
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.slow
def test_why_not(engine, monkeypatch):
    engine()
    here = open_flavour("tensorrt")
    assert verify.why_not(here) is None
    monkeypatch.setattr(cuda, "why_no_gpu", lambda: "no GPU (for this test)")
    assert verify.why_not(here) == "no GPU (for this test)"


def test_why_not_asks_rtx_about_the_engine(tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    device = FakeDevice("NVIDIA H200", "9.0")
    module = fake_module("rtx", device, {})
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    monkeypatch.setattr(flavour, "is_installed", lambda name: name == flavour.RTX)
    monkeypatch.setattr(cuda, "open_device", lambda: device)
    monkeypatch.setattr(cuda, "why_no_gpu", lambda: None)
    path = tmp_path / "x.engine"
    path.write_bytes(b"x")
    here = open_flavour(flavour.RTX)
    assert verify.why_not(here, path) is None
    assert verify.why_not(here, path, ["sm_86", "sm_89"]) == (
        "this NVIDIA H200 is sm_90, which is not one of its targets: sm_86, sm_89"
    )
    assert verify.why_not(here, path, ["sm_86", "sm_90"]) is None
    invalid = module.EngineValidity.INVALID
    module.validity = (invalid, 2)
    assert verify.why_not(here, path) == (
        "TensorRT-RTX 1.7.1 cannot run it on NVIDIA H200 (compute capability 9.0): UNSUPPORTED_CC"
    )
    module.validity = (invalid, 32)  # a malformed engine is this build's fault, so it is not excused
    assert verify.why_not(here, path) is None
