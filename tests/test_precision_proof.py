"""A precision that is asked for is computed and compared with the graph, or refused with what there is."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from segdeploy import files
from segdeploy.assess.evaluate.models import EvaluationRequest, open_candidate
from segdeploy.cli import main
from segdeploy.errors import ExportDisagrees, RequestError
from segdeploy.machine import cpu_model
from segdeploy.prove import precision as module
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.bounds import Bounds
from segdeploy.prove.opening import open_session
from segdeploy.prove.precision import PrecisionProof, kept_proof
from segdeploy.run.ort import OrtSession
from segdeploy.run.runtimes import runtime_for


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # A network of random weights has a class's edge everywhere, and is not what the bound was measured on.
    monkeypatch.setitem(module.BOUNDS, "int8", Bounds(0.9))


@pytest.fixture
def openvino():
    pytest.importorskip("openvino", reason="openvino is not installed")
    from segdeploy.run import openvino as runtime

    return runtime


def kept():
    return sorted(files.user_cache("precisions").glob("*.json"))


def refusal(path, error=RequestError, **asked):
    with pytest.raises(error) as seen:
        open_session(path, **asked)
    return str(seen.value)


@pytest.mark.slow
def test_int8_is_proven_once_and_then_remembered(int8, monkeypatch):
    said = []
    with open_session(int8, precision="int8", tell=said.append) as session:
        assert session.ran["precision"] == "int8"
    (place,) = kept()
    proof = json.loads(place.read_text())
    assert (proof["provider"], proof["precision"], proof["samples"]) == ("cpu", "int8", 3)
    assert said == [
        f"{int8.name} runs in int8 (ONNX Runtime on the CPU): {proof['equal_pixels'] / proof['pixels']:.2%} of 46,080"
        " labels on made scenes equal to the graph's"
    ]
    monkeypatch.setattr(module, "compare_with_graph", None)  # nothing is computed again
    open_session(int8, precision="int8").close()


@pytest.mark.slow
def test_another_cpu_or_version_needs_a_new_proof(int8, monkeypatch):
    made = []
    monkeypatch.setattr(
        module, "compare_with_graph", lambda *_: made.append(1) or Agreement(1, 100, 99, None)
    )
    runtime, version = runtime_for("x.onnx", "cpu"), module.versions_of
    for kind, versions in (
        ("one", version),
        ("another", version),
        ("another", lambda _: {"onnxruntime": "99"}),
    ):
        monkeypatch.setattr(module, "kind_of_cpu", lambda kind=kind: kind)
        monkeypatch.setattr(module, "versions_of", versions)
        for _ in range(2):
            module.ToProve(int8, runtime, "int8").demand_proven(None)
    assert len(kept()) == len(made) == 3


def test_a_proof_that_does_not_hold_is_none(tmp_path):
    place = tmp_path / "proof.json"
    whole = PrecisionProof("abc", "cpu", "int8", "a CPU", {"onnxruntime": "1"}, 3, 1000, 950)
    place.write_text(json.dumps(asdict(whole)))
    assert kept_proof(place, "abc", "int8") == whole
    assert kept_proof(place, "abd", "int8") is None
    assert kept_proof(place, "abc", "bf16") is None
    for change in (
        {"equal_pixels": 899},
        {"equal_pixels": 1001},
        {"graph": "x"},
        {"attention": "some"},
        {"pixels": "all"},
        {"more": 1},
    ):
        place.write_text(json.dumps(asdict(whole) | change))
        assert kept_proof(place, "abc", "int8") is None, change
    for text in ("{", "[]", ""):
        place.write_text(text)
        assert kept_proof(place, "abc", "int8") is None
    place.unlink()
    assert kept_proof(place, "abc", "int8") is None


@pytest.mark.slow
def test_wrong_kernels_are_refused_and_not_remembered(int8, monkeypatch):
    right = OrtSession.run
    monkeypatch.setattr(OrtSession, "run", lambda self, inputs: np.flip(right(self, inputs), 1))
    said = refusal(int8, ExportDisagrees, precision="int8")
    assert said.startswith(f"{int8.name} in int8 (ONNX Runtime on the CPU) disagrees with the graph itself: ")
    assert said.endswith("demanded are 90.00% of the pixels. It is not used: leave --precision out")
    assert kept() == []


class Answering:
    """A session that notes with which products of attention in bytes it was opened, and that it was closed."""

    def __init__(self, attention, told):
        self.attention, self.told = attention, told
        self.has_attention_in_bytes = attention != "none"
        told.append(attention)

    def close(self):
        self.told.append("closed")


@pytest.mark.parametrize(
    ("equal", "told", "words"),
    [
        ({"all": 980, "scores": 985, "none": 990}, ["all"], ""),
        (
            {"all": 500, "scores": 985, "none": 990},
            ["all", "closed", "scores"],
            ", of attention only the scores",
        ),
        (
            {"all": 500, "scores": 500, "none": 990},
            ["all", "closed", "scores", "closed", "none"],
            ", attention in floats",
        ),
    ],
)
def test_as_much_of_attention_is_in_bytes_as_keeps_the_labels(equal, told, words, int8, monkeypatch):
    runtime, seen = runtime_for("x.onnx", "openvino"), []
    monkeypatch.setattr(
        module,
        "compare_with_graph",
        lambda session, graph: Agreement(3, 1000, equal[session.attention], None),
    )
    _, proof = module.ToProve(int8, runtime, "int8").proven(lambda which: Answering(which, seen))
    assert seen == told
    assert (proof.attention, proof.equal_pixels) == (told[-1], equal[told[-1]])
    assert proof.words(runtime) == f"OpenVINO on the CPU{words}"
    assert len(kept()) == 1
    seen.clear()
    monkeypatch.setattr(module, "compare_with_graph", None)
    module.ToProve(int8, runtime, "int8").proven(lambda which: Answering(which, seen))
    assert seen == told[-1:]  # remembered


def test_a_graph_without_scales_for_the_scores_has_attention_in_floats_then(int8, monkeypatch):
    runtime, told = runtime_for("x.onnx", "openvino"), []

    def opened(attention):
        session = Answering(attention, told)
        session.has_attention_in_bytes = attention == "all"
        return session

    equal = {"all": 500, "scores": 990}
    monkeypatch.setattr(
        module, "compare_with_graph", lambda one, graph: Agreement(3, 1000, equal[one.attention], None)
    )
    _, proof = module.ToProve(int8, runtime, "int8").proven(opened)
    assert told == ["all", "closed", "scores"]
    assert proof.words(runtime) == "OpenVINO on the CPU, attention in floats"


def test_where_all_are_too_far_off_it_is_refused(int8, monkeypatch):
    told = []
    monkeypatch.setattr(module, "compare_with_graph", lambda *_: Agreement(3, 1000, 500, None))
    with pytest.raises(ExportDisagrees):
        module.ToProve(int8, runtime_for("x.onnx", "openvino"), "int8").proven(
            lambda which: Answering(which, told)
        )
    assert told == ["all", "closed", "scores", "closed", "none", "closed"]
    assert kept() == []


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_done_without(int8, tmp_path):
    (tmp_path / "cache").write_text("a file")
    open_session(int8, precision="int8").close()


@pytest.mark.slow
def test_f32_needs_no_proof_and_is_not_for_a_quantised_graph(graphs, int8):
    open_session(graphs("frames"), precision="f32").close()
    assert kept() == []
    assert refusal(int8, precision="f32") == (
        f"{int8.name} is int8, not f32; run the graph that it was made from, or leave --precision out"
    )


def test_int8_needs_scales(graphs):
    path = graphs("frames")
    assert refusal(path, precision="int8") == (
        f"{path.name} is fp32, and int8 needs scales that are calibrated on your images; run what this makes: segdeploy"
        f" quantize {path} --images DIR"
    )


def test_a_precision_that_the_cpu_has_not(graphs, openvino, monkeypatch):
    monkeypatch.setattr(openvino, "precisions_here", lambda: ["f32", "int8"])
    assert refusal(graphs("frames"), precision="bf16") == (
        f"bf16 is not computed by this CPU ({cpu_model()}), which has f32 and int8 in OpenVINO; take --precision f32,"
        " or leave it out"
    )


@pytest.mark.slow
def test_bf16_is_bf16_or_refused(graphs, openvino, monkeypatch):
    """OpenVINO computes in FP32 without a word where a CPU has no bfloat16."""
    monkeypatch.setattr(openvino, "precisions_here", lambda: ["f32", "bf16"])
    monkeypatch.setitem(module.BOUNDS, "bf16", Bounds(0.8))
    path, here = graphs("frames"), openvino.openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" in here:
        with open_session(path, precision="bf16") as session:
            compiled = session._idle.queue[0].get_compiled_model()
            assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "bf16"
        assert len(kept()) == 1
    else:
        assert refusal(path, precision="bf16") == f"OpenVINO computes {path.name} in f32 here, not in bf16"


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run", "bench"])
def test_the_verbs_take_it_and_say_so(verb, int8, images, tmp_path, capsys):
    more = {
        "run": [images, "-o", tmp_path / "out"],
        "bench": ["--duration", "0.1", "--warmup", "1"],
    }[verb]
    assert main([verb, *map(str, (int8, *more)), "--precision", "int8"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith(f"segdeploy: {int8.name} runs in int8 (ONNX Runtime on the CPU): ")
    if verb == "bench":
        assert "on the CPU, int8\n" in said.out
        assert "precision: int8" in said.out


@pytest.mark.slow
def test_an_evaluation_in_it_is_another_evaluation(int8, monkeypatch):
    monkeypatch.setattr(module, "compare_with_graph", lambda *_: Agreement(1, 100, 99, None))
    dataset, said = SimpleNamespace(pairs=(), digest="d"), []
    asked = EvaluationRequest((int8,), dataset, precision="int8", tell=said.append)
    with open_candidate(asked, "x", int8) as to_prove:
        assert to_prove.key["provider"] == "cpu int8"
    assert len(said) == 1


@pytest.mark.parametrize(
    ("model", "asked", "said"),
    [
        ("x.onnx", {"precision": "fp4"}, "no precision is called 'fp4'; known: f32, bf16, int8"),
        ("x.onnx", {"provider": "cpu", "precision": "bf16"},
         "precision bf16 is not for x.onnx: ONNX Runtime on the CPU computes in f32 or int8; leave it out"),
        ("x.onnx", {"provider": "cuda", "precision": "f32"},
         "precision f32 is not for x.onnx: ONNX Runtime on the GPU computes it in its own precision; leave it out"),
        ("x.engine", {"precision": "int8"},
         "precision int8 is not for x.engine: TensorRT on the GPU computes it in its own precision; leave it out"),
    ],
)  # fmt: skip
def test_what_a_runtime_does_not_compute_in(model, asked, said):
    assert refusal(model, **asked) == said


@pytest.mark.parametrize(
    ("asked", "words"),
    [(None, "ONNX Runtime"), ("f32", "ONNX Runtime"), ("int8", "ONNX Runtime"), ("bf16", "OpenVINO")],
)
def test_the_first_runtime_that_has_the_precision_is_taken(asked, words):
    assert runtime_for("x.onnx", None, asked).title == words
