"""The selftest: what is shipped, what is found out on a runtime, and what is told of it."""

import getpass
import json
import platform
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from segdeploy import selftest
from segdeploy.cli import main
from segdeploy.errors import EngineError
from segdeploy.files import digest_of
from segdeploy.networks import FAMILIES
from segdeploy.selftest import Attempt, outcome_of, run_selftest, told
from segdeploy.selftest.pack import unpacked
from segdeploy.shipped import folder


@pytest.fixture(scope="module")
def pack():
    with unpacked() as pack:
        yield pack


def test_the_pack_has_every_family_interface_and_precision(pack):
    assert {trial.family for trial in pack.trials} == {family.name for family in FAMILIES}
    assert {trial.interface for trial in pack.trials} == {"nvinfer", "frames", "logits"}
    assert {trial.precision for trial in pack.trials} == {"fp32", "fp16", "int8"}
    assert None in {trial.batch for trial in pack.trials}
    assert len({trial.name for trial in pack.trials}) == len(pack.trials)


def test_it_is_small():
    assert (folder("selftest") / "graphs.tar.xz").stat().st_size <= 1e6


def test_its_graphs_are_those_that_were_made_and_answer_several_classes(pack):
    for trial in pack.trials:
        assert digest_of(pack.graph(trial)) == trial.digest
        assert len(np.unique(pack.labels[trial.name])) >= 2, trial.name
        height, width = map(int, trial.size.split("x"))
        assert pack.frames[trial.size].shape == (height, width, 3)


@pytest.fixture(scope="module")
def result():
    return run_selftest(600)


@pytest.mark.slow
def test_all_agrees_where_nothing_is_wrong(result, pack):
    on_cpu = [one for one in result.outcomes if one.runtime == "cpu"]
    assert [one.graph for one in on_cpu] == [trial.name for trial in pack.trials]
    assert Counter(one.result for one in on_cpu) == {"agrees": len(pack.trials)}
    assert all(one.agreement >= 0.99 for one in on_cpu)
    assert result.counted("cpu")["agrees"] == len(pack.trials)


def test_a_runtime_that_answers_wrongly_is_told(pack, tmp_path):
    def spoilt(graph):
        model = onnx.load(graph)
        for tensor in model.graph.initializer:
            weights = onnx.numpy_helper.to_array(tensor)
            if weights.dtype == np.float32 and weights.size > 100:
                tensor.CopyFrom(onnx.numpy_helper.from_array(-weights, tensor.name))
        onnx.save(model, tmp_path / graph.name)
        return tmp_path / graph.name

    seen = outcome_of(pack.trials[0], "cpu", pack, Attempt("cpu", spoilt))
    assert (seen.result, seen.why) == ("differs", "")
    assert seen.agreement < 0.99


def test_what_a_runtime_refuses_is_a_result(pack):
    def refused(graph):
        raise EngineError("no kernel for this")

    def broken(graph):
        raise RuntimeError("a\nfault " + 500 * "x")

    first = pack.trials[0]
    assert outcome_of(first, "engine", pack, Attempt(None, refused)).why == "no kernel for this"
    seen = outcome_of(first, "engine", pack, Attempt(None, broken))
    assert (seen.result, seen.agreement) == ("refused", None)
    assert seen.why.startswith("RuntimeError: a")
    assert len(seen.why) == selftest.LONGEST_WORDS


def test_what_the_time_does_not_reach_is_named(pack):
    late = run_selftest(-1)
    assert {one.result for one in late.outcomes} == {"not run"}
    assert late.outcomes[0].why == "-1 s had passed"
    assert not late.differing


def test_engines_are_built_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(selftest, "is_installed", lambda name: True)
    assert not [name for name in selftest.attempts() if "engine" in name]
    monkeypatch.setattr(selftest, "why_no_gpu", lambda: None)
    assert [name for name in selftest.attempts() if "engine" in name] == [
        "tensorrt engine",
        "tensorrt-rtx engine",
    ]


@pytest.mark.slow
def test_the_verb_writes_what_can_be_sent(tmp_path, monkeypatch, capsys, result):
    monkeypatch.setattr(selftest, "run_selftest", lambda seconds, progress: result)
    file = tmp_path / "result.json"
    assert main(["selftest", "-o", str(file)]) == 0
    assert "agrees" in capsys.readouterr().out.splitlines()[0]
    facts = json.loads(file.read_text())
    assert facts["schema"] == 1
    assert {one["graph"] for one in facts["outcomes"]} >= {"segformer.nvinfer.fp32"}
    assert "onnxruntime" in {one["subject"] for one in facts["machine"]}
    for secret in (str(Path.home()) if str(Path.home()) != "/" else None, platform.node()):
        assert not secret or len(secret) < 3 or secret not in file.read_text()


@pytest.mark.slow
def test_a_graph_that_differs_ends_the_verb_with_1(monkeypatch, capsys, result):
    first = replace(result.outcomes[0], result="differs", agreement=0.5)
    wrong = replace(result, outcomes=(first, *result.outcomes[1:]))
    monkeypatch.setattr(selftest, "run_selftest", lambda seconds, progress: wrong)
    assert main(["selftest"]) == 1
    assert f"differs: {first.graph}, {first.runtime}: 50.00% of the labels" in capsys.readouterr().out


def test_names_of_a_person_and_a_machine_are_left_out(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(platform, "node", lambda: "adas-jetson")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    said = told.anonymous({"a": ["/home/ada/venv", "/mnt/ada/x", 3], "b": "on adas-jetson"})
    assert said == {"a": ["~/venv", "/mnt/user/x", 3], "b": "on machine"}
