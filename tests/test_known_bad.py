"""Rows of known-bad.yaml: each has a kind of graph that a matcher tells, and each matcher has both kinds of graph."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segdeploy.cli import main
from segdeploy.convert.bundled import bundled_graph
from segdeploy.flavour import Version
from segdeploy.graph.known_bad import bug_of_sampling, reports_on
from segdeploy.graph.patterns import MATCHERS, Subject
from segdeploy.graph.precision import Precision
from segdeploy.graph.view import View
from segdeploy.model import known_bad as table
from segdeploy.model.known_bad import EFFECTS, Versions, known_bad

FP32, FP16, INT8 = Precision(False, False), Precision(False, True), Precision(True, False)


def graph(*nodes, opset=17, constants=(), kind=TensorProto.FLOAT):
    made = [helper.make_node(op, reads.split(), makes.split(), **rest) for op, reads, makes, rest in nodes]
    held = [numpy_helper.from_array(np.zeros(2, np.float32), name) for name in constants]
    x = helper.make_tensor_value_info("x", kind, [1, 3, 32, 32])
    y = helper.make_tensor_value_info("y", kind, None)
    body = helper.make_graph(made, "g", [x], [y], held)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)])


def node(op, reads, makes, **rest):
    return op, reads, makes, rest


def attention(*between, scores="s", probabilities="p"):
    """Queries with keys, a soft-max, and its product with values."""
    return [
        node("MatMul", "x x", "s"),
        *between,
        node("Softmax", scores, "p"),
        node("MatMul", f"{probabilities} x", "y"),
    ]


PLAIN = graph(node("Conv", "x w", "y", kernel_shape=[3, 3], strides=[2, 2]), constants=["w"])
SAMPLING = [node("GridSample", "x g", "y")]
ATTENTION = graph(*attention())
CUT = node("Conv", "x w", "patches", kernel_shape=[16, 16], strides=[16, 16])
VIT = graph(CUT, *attention(), constants=["w"])
MIT = graph(
    node("Conv", "x w", "patches", kernel_shape=[7, 7], strides=[4, 4]), *attention(), constants=["w"]
)
IN_PIECES = graph(
    node("ReduceMean", "x", "m"), node("Add", "m e", "a"), node("Sqrt", "a", "r"), node("Div", "x r", "y"),
    constants=["e"], opset=13,
)  # fmt: skip
WHOLE_NORM = graph(node("LayerNormalization", "x g", "y"), constants=["g"])
EIGHT = graph(node("Relu", "x", "y"))
EIGHT.graph.initializer.append(helper.make_tensor("f", TensorProto.FLOAT8E4M3FN, [1], [1.0]))
QUANTISED = attention(
    node("QuantizeLinear", "p z", "i"), node("DequantizeLinear", "i z", "d"), probabilities="d"
)
IN_QDQ = graph(*[QUANTISED[0], QUANTISED[3], *QUANTISED[1:3], QUANTISED[4]], constants=["z"])
BIASED = graph(*attention(node("Add", "s b", "t"), scores="t"), constants=["b"])
MASKED = graph(*attention(node("Relu", "x", "m"), node("Add", "s m", "t"), scores="t"))


def seen(model, precision=FP32, batch=1):
    return Subject(View(model), precision, batch)


# Pattern: a graph of that kind, and one that is nearly.
PAIRS = {
    "gridsample": (seen(graph(*SAMPLING, constants=["g"])), seen(PLAIN)),
    "gridsample-of-opset-20": (
        seen(graph(*SAMPLING, constants=["g"], opset=20)),
        seen(graph(*SAMPLING, constants=["g"], opset=19)),
    ),
    "attention": (seen(IN_QDQ), seen(graph(node("Softmax", "x", "y")))),
    "attention-in-batches": (seen(ATTENTION, batch=None), seen(ATTENTION, batch=1)),
    "window-attention": (seen(BIASED), seen(MASKED)),
    "int8-attention-without-fp16": (seen(ATTENTION, INT8), seen(ATTENTION, Precision(True, True))),
    "vision-transformer": (seen(VIT), seen(MIT)),
    "vision-transformer-fp16": (seen(VIT, FP16), seen(VIT)),
    "layernorm-in-pieces-fp16": (seen(IN_PIECES, FP16), seen(WHOLE_NORM, FP16)),
    "fp8": (seen(EIGHT), seen(PLAIN)),
    "int8": (seen(PLAIN, INT8), seen(PLAIN, FP16)),
}


def test_every_row_is_told_by_a_matcher_and_every_matcher_is_of_a_row():
    assert {row.pattern for row in known_bad()} == set(MATCHERS) == set(PAIRS)
    assert len({row.issue for row in known_bad()}) == len(known_bad())


@pytest.mark.parametrize("row", known_bad(), ids=lambda row: row.issue)
def test_a_row_fits_a_graph_of_its_kind_and_not_one_that_is_nearly(row):
    version = Version.parse(row.since)
    of_its_kind, nearly = PAIRS[row.pattern]
    assert row in reports_on(of_its_kind, version, row.gpus or None)
    assert row not in reports_on(nearly, version, row.gpus or None)


@pytest.mark.parametrize("row", known_bad(), ids=lambda row: row.issue)
def test_a_row_ends_with_its_versions_and_its_gpus(row):
    first, last = (Version.parse(one) if one else None for one in (row.since, row.until))
    assert row.applies(first, None)
    assert not row.applies(Version(first.major, first.minor - 1, 9), None)
    if last is None:
        assert row.applies(Version(99, 0, 0), None)
    else:
        assert row.applies(last._replace(patch=9), None)
        assert not row.applies(Version(last.major, last.minor + 1, 0), None)
    assert row.applies(first, ("7.5",)) is not bool(row.gpus)
    assert row.effect in EFFECTS
    assert row.cure
    assert not row.what.endswith(".")


def test_a_row_that_is_written_wrongly_is_named(tmp_path, monkeypatch):
    rows = table.TABLE.read_text().replace("effect: wrong", "effect: odd", 1)
    (tmp_path / "rows.yaml").write_text(rows)
    monkeypatch.setattr(table, "TABLE", tmp_path / "rows.yaml")
    with pytest.raises(ValueError, match="effect is 'odd'; expected wrong or slow or crash"):
        known_bad.__wrapped__()


def test_versions_are_said_as_they_are():
    assert str(Versions((10, 3), (10, 3))) == "TensorRT 10.3"
    assert str(Versions((8, 2), None)) == "TensorRT 8.2 and later"


def test_sampling_has_the_report_of_its_version():
    assert bug_of_sampling(Version(10, 13, 3), 3, 17)[0].startswith(
        "NVIDIA/TensorRT#4813 (GridSample in deformable"
    )
    assert bug_of_sampling(Version(10, 5, 0), 3, 20)[0].startswith("NVIDIA/TensorRT#4646")
    assert bug_of_sampling(Version(10, 5, 0), 3, 19) is None
    assert bug_of_sampling(Version(10, 13, 3), 0, 20) is None


@pytest.mark.slow
def test_a_segformer_is_of_the_kinds_that_it_is(tmp_path):
    segformer = Subject(View(onnx.load(bundled_graph(into=tmp_path))), FP32, None)
    assert {pattern for pattern, matches in MATCHERS.items() if matches(segformer)} == {
        "attention", "attention-in-batches",
    }  # fmt: skip


@pytest.mark.slow
def test_build_engine_says_what_is_reported(graphs, tensorrt_here, tmp_path, capsys):
    tensorrt_here("10.16.1")
    dynamic = graphs("nvinfer", None)
    assert main(["build-engine", str(dynamic), "--batch", "2", "-o", str(tmp_path)]) == 0
    assert "NVIDIA/TensorRT#4853 (SegFormer with a batch above 1, TensorRT 10.11 to 11.1)" in "".join(
        capsys.readouterr()
    )
    assert main(["build-engine", str(dynamic), "--batch", "1", "-o", str(tmp_path)]) == 0
    assert "#4853" not in "".join(capsys.readouterr())
