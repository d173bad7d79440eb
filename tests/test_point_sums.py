"""Sums over a few points, as OpenVINO's copy of a graph has them: the same sums, added one by one."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from segdeploy.graph.view import View
from segdeploy.run.point_sums import add_point_by_point


def summing(samples=(2, 8, 4, 30), shares=(2, 1, 4, 30), axis=2, keepdims=0, batch=None, product_out=False):
    rank = len(samples)
    side = [batch or samples[0], *samples[1:]]
    inputs = [
        helper.make_tensor_value_info("samples", TensorProto.FLOAT, side),
        helper.make_tensor_value_info("shares", TensorProto.FLOAT, [batch or shares[0], *shares[1:]]),
    ]
    nodes = [
        helper.make_node("Mul", ["samples", "shares"], ["product"], "Mul"),
        helper.make_node("ReduceSum", ["product", "axes"], ["total"], "Sum", keepdims=keepdims),
        helper.make_node("Relu", ["total"], ["answer"], "Relu"),
    ]
    outputs = ["answer", *(["product"] if product_out else [])]
    ranks = {"answer": rank - 1 + keepdims, "product": rank}
    known = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [f"{name}.{side}" for side in range(ranks[name])]
        )
        for name in outputs
    ]
    axes = numpy_helper.from_array(np.array([axis], np.int64), "axes")
    graph = helper.make_graph(nodes, "sums", inputs, known, [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def answer(model, samples, shares):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["answer"], {"samples": samples, "shares": shares})[0]


def kinds(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"axis": -2},
        {"batch": "N"},
        {"samples": (1, 5, 2, 7), "shares": (1, 5, 2, 7)},
        {"samples": (3, 1, 8, 9), "shares": (3, 6, 8, 9)},
    ],
)
def test_points_are_added_one_by_one(form):
    model = summing(**form)
    samples, shares = form.get("samples", (2, 8, 4, 30)), form.get("shares", (2, 1, 4, 30))
    random = np.random.default_rng(0)
    given = [random.standard_normal(sides).astype(np.float32) for sides in (samples, shares)]
    expected = answer(model, *given)
    assert add_point_by_point(View(model)) == 1
    onnx.checker.check_model(model, full_check=True)
    points = samples[2]
    assert "ReduceSum" not in kinds(model)
    assert (kinds(model).count("Mul"), kinds(model).count("Add")) == (points, points - 1)
    found = answer(model, *given)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "form",
    [
        {"axis": 1},
        {"axis": 3},
        {"keepdims": 1},
        {"product_out": True},  # somebody else reads it
        {"samples": (2, 8, 9, 30), "shares": (2, 1, 9, 30)},  # many points
        {"samples": (2, 8, 1, 30), "shares": (2, 1, 1, 30)},  # one
        {"shares": (2, 1, 1, 30)},  # one share for all points
        {"shares": (2, 1, 4, 1)},
        {"samples": (2, 8, 4), "shares": (2, 1, 4)},
        {"samples": (2, 8, 4, 3, 3), "shares": (2, 1, 4, 3, 3)},
        {"samples": (2, 8, "P", 30), "shares": (2, 1, "P", 30)},
        {"samples": (2, 8, 4, "L"), "shares": (2, 1, 4, "L")},
    ],
)
def test_other_sums_stay(form):
    model = summing(**form)
    before = model.SerializeToString()
    assert add_point_by_point(View(model)) == 0
    assert model.SerializeToString() == before
