"""The composite action's own steps, run by bash as GitHub runs them, on a data set of made scenes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from segdeploy.convert.bundled import bundled_graph
from segdeploy.scenes import write_cityscapes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
ACTION = ROOT / ".github/actions/keeps-miou/action.yaml"


def step(name):
    (found,) = [one for one in yaml.safe_load(ACTION.read_text())["runs"]["steps"] if one["name"] == name]
    return found


def inputs_as_environment(given):
    """What GitHub puts in for ${{ inputs.x }}: what is given, else the default."""
    declared = yaml.safe_load(ACTION.read_text())["inputs"]
    values = {name: given.get(name, facts.get("default")) for name, facts in declared.items()}
    named = {
        key: text.removeprefix("${{ inputs.").removesuffix(" }}")
        for key, text in step("score")["env"].items()
    }
    return {key: str(values[name]) for key, name in named.items()}


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    """A runner's folder, in which segdeploy is installed already."""
    folder = tmp_path_factory.mktemp("runner")
    scripts = folder / "segdeploy/bin"
    scripts.mkdir(parents=True)
    (scripts / "python").symlink_to(sys.executable)
    (scripts / "segdeploy").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m segdeploy "$@"\n')
    (scripts / "segdeploy").chmod(0o755)
    write_cityscapes(folder / "city", 2, seed=900_000_000, height=128, width=256)
    return folder


@pytest.fixture(scope="module")
def graphs_of_a_change(tmp_path_factory):
    """The bundled graph, and the same with the weights of its last layers gone."""
    folder = tmp_path_factory.mktemp("change")
    before = bundled_graph("frames", into=folder)
    model = onnx.load(before)
    largest = max(model.graph.initializer, key=lambda one: np.prod(one.dims))
    largest.CopyFrom(onnx.numpy_helper.from_array(np.zeros(largest.dims, np.float32), largest.name))
    onnx.save(model, folder / "spoilt.onnx")
    return before, folder / "spoilt.onnx"


def score(runner, **given):
    environment = {
        **os.environ,
        **inputs_as_environment({"dataset": "cityscapes", "root": runner / "city", **given}),
        "RUNNER_TEMP": str(runner),
        "GITHUB_ACTION_PATH": str(ACTION.parent),
    }
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step("score")["run"]]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def test_a_graph_that_lost_miou_is_refused(runner, graphs_of_a_change):
    before, spoilt = graphs_of_a_change
    done = score(runner, before=before, after=spoilt)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("REFUSED: spoilt")
    assert "0.25 may be lost" in done.stdout


def test_a_graph_that_kept_it_passes(runner, graphs_of_a_change, tmp_path):
    before, _ = graphs_of_a_change
    again = tmp_path / "again.onnx"
    again.write_bytes(before.read_bytes())
    done = score(runner, before=before, after=again, limit=1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kept: again")
    assert "change +0.00 points" in done.stdout


def test_every_input_reaches_a_step():
    declared = yaml.safe_load(ACTION.read_text())["inputs"]
    used = " ".join(
        text for one in yaml.safe_load(ACTION.read_text())["runs"]["steps"] for text in one["env"].values()
    )
    assert {name for name in declared if f"inputs.{name} " in used} == set(declared)
