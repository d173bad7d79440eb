"""The suites hold commands that can be typed, and what they measure lands where the report looks."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from segdeploy.cli import VERBS, parser

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def suites(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import suites

    yield suites
    for name in ("suites", "setting"):
        sys.modules.pop(name, None)


PATHS = sorted((BENCHMARKS / "suites").glob("*.yaml"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_suite_is_commands_that_parse(suites, path):
    suite = suites.read_suite(path)
    assert suite.question.endswith("?")
    assert suite.needs in ("cpu", "cuda", "tensorrt")
    made = set()
    for command in suite.make:
        program, *arguments = shlex.split(command)
        if program == "python":
            assert (BENCHMARKS.parent / arguments[0]).is_file()
            kind, which = arguments[1:]
            places = {"frames": [f"frames.{which}", f"frames.{which}.mp4"], "checkpoint": [which]}[kind]
            made |= {f"benchmarks/made/{place}" for place in places}
        elif arguments[0] in VERBS:
            made.add(str(parser().parse_args(arguments).output))
        else:
            assert arguments[0] == "build-engine"
            made.add(arguments[arguments.index("-o") + 1])
    for command in suite.measure.values():
        program, *arguments = shlex.split(command)
        asked = parser().parse_args(arguments)
        assert (program, asked.verb) == ("segdeploy", "bench")
        for needed in (asked.model, *(asked.compare or []), str(asked.end_to_end or "models/demo-b0")):
            assert needed in made | {"models/demo-b0"}, f"{needed} is not made by this suite"


def test_there_is_a_suite_for_every_machine(suites):
    assert suites.lacking("cpu") is None
    assert any(suites.read_suite(path).needs == "cpu" for path in PATHS)


@pytest.mark.slow
def test_a_run_writes_its_results(suites, graphs, tmp_path):
    bench = f"segdeploy bench {shlex.quote(str(graphs('frames')))} --duration 0.01 --threads 1"
    suite = suites.Suite("small", "?", "cpu", (), {"one": bench, "wrong": f"{bench} --batch 7"})
    failed = suites.run_suite(suite, tmp_path)
    assert failed == [f"{bench} --batch 7 --json {tmp_path / 'bench.small.wrong.json'}"]
    results = json.loads((tmp_path / "bench.small.one.json").read_text())
    assert results["kind"] == "bench"
    assert results["command"].startswith("segdeploy bench ")


@pytest.mark.slow
def test_nothing_is_measured_on_what_could_not_be_made(suites, tmp_path):
    suite = suites.Suite(
        "small", "?", "cpu", ("segdeploy export nowhere.pth",), {"one": "segdeploy bench x.onnx"}
    )
    assert suites.run_suite(suite, tmp_path) == ["segdeploy export nowhere.pth"]
