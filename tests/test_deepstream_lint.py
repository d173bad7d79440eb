"""Each file in traps/ is a good configuration but for one thing, and its name is the one finding that it gets."""

import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segdeploy.cli import main
from segdeploy.errors import DeepStreamError
from segdeploy.files import digest_of
from segdeploy.graph.load import read_graph
from segdeploy.model.record import first_record, record_path
from segdeploy.serve.deepstream.launch import command
from segdeploy.serve.deepstream.lint import lint

TRAPS = Path(__file__).parent / "traps"
CLEAN = {"clean", "clean-app", "tensors"}


@pytest.fixture(scope="module")
def models(graphs, typed, tmp_path_factory):
    """The graphs that the traps name in their second line."""
    folder = tmp_path_factory.mktemp("models")
    made = {kind: graphs(kind) for kind in ("nvinfer", "logits", "frames")}
    made |= typed
    made["whole-logits"] = whole_logits(made["logits"], folder / "whole.onnx")
    made["rubbish"] = folder / "rubbish.onnx"
    made["rubbish"].write_bytes(b"<html>")
    return made


def whole_logits(path, target):
    """Logits of the input's own resolution, with the metadata of one of our graphs."""
    model = onnx.load(path)
    weights = np.random.default_rng(0).standard_normal((5, 3, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w"], ["logits"])],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, 96, 160))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 5, 96, 160))],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made.metadata_props.extend(model.metadata_props)
    onnx.save(made, target)
    return target


@pytest.fixture
def place(models, tmp_path):
    """A folder with what the traps name; `place(trap)` puts one there."""
    names = read_graph(models["nvinfer"]).signature.labels.names
    lists = {"": names, ".four": names[:4], ".six": (*names, "boat"), ".swapped": names[::-1]}
    for which, classes in lists.items():
        (tmp_path / f"labels{which}.txt").write_text("\n".join(classes) + "\n")
    (tmp_path / "built.engine").write_bytes(b"")
    refuted = tmp_path / "refuted.engine"
    refuted.write_bytes(b"an engine")
    verified = {"done": False, "disagrees": True, "why": "in slot 2 of batch 4 0.00% of the pixels are equal"}
    of_graph = first_record(
        refuted.name, digest_of(refuted), read_graph(models["nvinfer"]).signature, "fp32", 17
    )
    record_path(refuted).write_text(replace(of_graph, engine={"verified": verified}).as_text())

    def put(trap):
        kind = trap.read_text().splitlines()[1].removeprefix("# with: ")
        if kind in models:
            shutil.copy(models[kind], tmp_path / "model.onnx")
        for name in ("clean.txt", "tensors.txt"):
            shutil.copy(TRAPS / name, tmp_path)
        (tmp_path / "configs").mkdir()
        for name in ("clean.txt", "tensors.txt"):
            shutil.copy(TRAPS / name, tmp_path / "configs")
        return Path(shutil.copy(trap, tmp_path))

    return put


@pytest.mark.parametrize("trap", sorted(TRAPS.iterdir()), ids=lambda path: path.name)
def test_a_trap_gets_exactly_its_finding(trap, place):
    found = lint(place(trap))
    assert [one.code for one in found] == ([] if trap.stem in CLEAN else [trap.stem]), found
    for one in found:
        assert 1 <= one.line <= len(trap.read_text().splitlines())
        assert one.what
        assert one.remedy


def test_an_engine_that_was_built_anew_is_not_the_one_that_was_refuted(place, tmp_path):
    trap = place(TRAPS / "engine-refuted.txt")
    (found,) = lint(trap)
    assert found.what == (
        "model-engine-file is refuted.engine, which was compared with its graph, and is wrong: in slot 2 of batch 4"
        " 0.00% of the pixels are equal"
    )
    with pytest.raises(
        DeepStreamError, match=r"is wrong: in slot 2 of batch 4 .* Instead remove it and its record"
    ):
        command(Path("ds-tao-segmentation"), trap, ["rtsp://camera/stream"])
    (tmp_path / "refuted.engine").write_bytes(b"another engine")
    assert lint(trap) == []
    assert command(Path("ds-tao-segmentation"), trap, ["rtsp://camera/stream"])


def test_every_finding_has_a_trap():
    sources = Path(__file__).parent.parent.joinpath("segdeploy", "serve", "deepstream").glob("lint*.py")
    written = set(re.findall(r'Finding\(\s*"([a-z0-9-]+)"', "".join(path.read_text() for path in sources)))
    chosen = {"unknown-key", "wrong-type", "out-of-range", "labels-too-few", "labels-too-many"}
    trapped = {path.stem for path in TRAPS.iterdir()} - CLEAN
    assert written | chosen == trapped | {"not-text", "nul-byte"}


def test_a_misspelt_key_is_told_the_likely_one(place):
    (found,) = lint(place(TRAPS / "unknown-key.txt"))
    assert found.remedy == "interval was probably meant"
    assert found.line == 18


def test_scales_are_told_per_channel(place):
    (found,) = lint(place(TRAPS / "scale-differs.txt"))
    assert "-77.40 %, -77.40 %, -77.40 %" in found.what
    assert found.remedy == "write net-scale-factor=0.01735207357279195"


def test_a_foreign_graph_of_three_scales_cannot_be_written_down(place, tmp_path):
    path = place(TRAPS / "clean.txt")
    model = onnx.load(tmp_path / "model.onnx")
    for item in model.metadata_props:
        if item.key == "segdeploy.scale":
            item.value = str([1 / 58.395, 1 / 57.12, 1 / 57.375])
    onnx.save(model, tmp_path / "model.onnx")
    (found,) = lint(path)
    assert found.code == "scale-differs"
    assert "+1.33 %, -0.88 %, -0.44 %" in found.what


def test_another_model_and_another_version(place, models):
    path = place(TRAPS / "clean.txt")
    assert [one.code for one in lint(path, models["logits"])] == ["tao-parser-output"]
    assert [one.code for one in lint(path, version="7.1")] == ["no-such-parser"]


# ---- bad files ---------------------------------------------------------------------------------------------------


def test_a_nul_byte(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"[property]\nbatch-size=1\n\0\n")
    assert [(one.code, one.line) for one in lint(path)] == [("nul-byte", 3)]


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"[property]\n\xff\xfe\n")
    (found,) = lint(path)
    assert found.code == "not-text"
    assert "not UTF-8 text (invalid start byte at byte 11)" in found.what


@pytest.mark.parametrize("suffix", [".txt", ".yml"])
def test_ten_thousand_lines(suffix, place, tmp_path):
    path = place(TRAPS / f"clean{suffix}")
    line = "untrue-key-{}=1\n" if suffix == ".txt" else "  untrue-key-{}: 1\n"
    many = "# nothing\n" * 9000 + "".join(line.format(number) for number in range(1000))
    path.write_text(path.read_text() + many)
    began = time.monotonic()
    found = lint(path)
    assert time.monotonic() - began < 30
    assert {one.code for one in found} == {"unknown-key"}
    assert len(found) == 1000


def test_yaml_that_is_none(tmp_path):
    path = tmp_path / "x.yml"
    for text, words in (
        ("property:\n\tx: 1\n", "it is not YAML"),
        ("- 1\n", "it has no groups"),
        ("[" * 700, "nested too deeply"),
    ):
        path.write_text(text)
        (found,) = lint(path)
        assert found.code == "syntax"
        assert words in found.what


def test_an_empty_file(tmp_path):
    for name in ("x.txt", "x.yml"):
        (tmp_path / name).write_text("")
        assert [one.code for one in lint(tmp_path / name)] in (["no-property-group"], ["syntax"])


# ---- the verb ----------------------------------------------------------------------------------------------------


def test_the_verb(place, capsys):
    path = place(TRAPS / "nearest-scaling.txt")
    assert main(["deepstream", "lint", str(path)]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"{path}:4: nearest-scaling: frames are scaled")
    assert said.endswith("Write scaling-filter=1, bilinear.\n")
    assert main(["deepstream", "lint", "--json", str(path)]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert [one["code"] for one in facts["findings"]] == ["nearest-scaling"]
    clean = path.with_name("clean.txt")
    assert main(["deepstream", "lint", str(clean)]) == 0
    assert capsys.readouterr().out == f"{clean}: nothing found\n"


def test_what_the_verb_refuses(tmp_path, capsys):
    assert main(["deepstream", "lint", str(tmp_path / "gone.txt")]) == 1
    assert "cannot be read: No such file or directory" in capsys.readouterr().err
    (tmp_path / "x.txt").write_text("[property]\n")
    assert main(["deepstream", "lint", str(tmp_path / "x.txt"), "--deepstream", "5.0"]) == 1
    assert "DeepStream '5.0' is not known here; known: 7.1, 8.0" in capsys.readouterr().err
    assert main(["deepstream", "lint", str(tmp_path / "x.txt"), "--model", str(tmp_path / "x.onnx")]) == 1
    assert "there is no file" in capsys.readouterr().err
