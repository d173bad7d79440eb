"""GridSample as gathers: ONNX Runtime's GridSample in numbers, at every border, and a refusal where it cannot be."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from segdeploy.errors import GraphError
from segdeploy.graph.gathers import sampling_as_gathers
from segdeploy.graph.patterns import samples_of


def graph(maps, grid, opset=17, kind=TensorProto.FLOAT, **attributes):
    batch, channels = maps[:2]
    node = helper.make_node("GridSample", ["maps", "grid"], ["y"], name="here/GridSample", **attributes)
    ends = [
        helper.make_tensor_value_info("maps", kind, maps),
        helper.make_tensor_value_info("grid", kind, grid),
        helper.make_tensor_value_info("y", kind, [batch, channels, *grid[1:-1]]),
    ]
    made = helper.make_graph([node], "sampling", ends[:2], ends[2:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, **inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]


def points_of(height, width, rng):
    """Inside, on each pixel, on the border, half a pixel and far beyond it."""
    inside = rng.uniform(-1.2, 1.2, (40, 2))
    x, y = np.meshgrid((np.arange(width) * 2 + 1) / width - 1, (np.arange(height) * 2 + 1) / height - 1)
    pixels = np.stack([x.ravel(), y.ravel()], 1)
    edges = np.array([[-1, -1], [1, 1], [-1, 1], [1, 0], [0, -1], [-3, 0], [0, 50], [1e6, -1e6]])
    beyond = np.array([[1 + 1 / width, 0], [-1 - 0.5 / width, 0], [0, 1 + 0.5 / height]])
    return np.concatenate([inside, pixels, edges, beyond]).astype(np.float32)


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize(
    ("height", "width", "opset", "mode"),
    [
        (1, 1, 17, "bilinear"),
        (1, 5, 16, "bilinear"),
        (4, 1, 18, "bilinear"),
        (2, 3, 20, "linear"),
        (7, 9, 17, None),
    ],
)
def test_it_samples_as_grid_sample_does(height, width, opset, mode, align_corners):
    rng = np.random.default_rng(height * width)
    points = np.stack([points_of(height, width, rng), rng.permutation(points_of(height, width, rng))])[
        :, None
    ]
    maps = rng.standard_normal((2, 3, height, width)).astype(np.float32)
    asked = {"mode": mode} if mode else {}
    model = graph(
        ["N", *maps.shape[1:]], ["N", *points.shape[1:]], opset, align_corners=align_corners, **asked
    )
    made = sampling_as_gathers(model)
    onnx.checker.check_model(made, full_check=True)
    assert "GridSample" not in {node.op_type for node in made.graph.node}
    assert {node.name.partition("/")[0] for node in made.graph.node} == {"here"}
    expected = run(model, maps=maps, grid=points)
    np.testing.assert_allclose(run(made, maps=maps, grid=points), expected, rtol=1e-5, atol=2e-6)


def test_in_fp16_places_are_computed_in_fp32():
    rng = np.random.default_rng(3)
    maps = rng.standard_normal((1, 2, 40, 300)).astype(np.float16)  # 12,000 places, more than FP16 counts
    grid = rng.uniform(-1.1, 1.1, (1, 2, 50, 2)).astype(np.float16)
    half = graph(maps.shape, grid.shape, kind=TensorProto.FLOAT16)
    made = sampling_as_gathers(half)
    onnx.checker.check_model(made, full_check=True)
    whole = graph(maps.shape, grid.shape)
    expected = run(whole, maps=maps.astype(np.float32), grid=grid.astype(np.float32))
    np.testing.assert_allclose(run(made, maps=maps, grid=grid), expected, atol=4e-3)


def test_maps_and_points_may_be_constants():
    rng = np.random.default_rng(5)
    maps, grid = rng.standard_normal((1, 2, 5, 6)), rng.uniform(-1, 1, (1, 3, 4, 2))
    model = graph(maps.shape, grid.shape)
    model.graph.initializer.append(onnx.numpy_helper.from_array(grid.astype(np.float32), "grid"))
    del model.graph.input[1]
    made = sampling_as_gathers(model)
    given = maps.astype(np.float32)
    np.testing.assert_allclose(run(made, maps=given), run(model, maps=given), atol=2e-6)


def test_one_in_a_branch_is_counted_and_refused():
    inner = graph([1, 2, 4, 4], [1, 3, 3, 2])
    branch = onnx.helper.make_graph(
        inner.graph.node, "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    node = helper.make_node("If", ["asked"], ["z"], then_branch=branch, else_branch=branch)
    del inner.graph.node[:]
    inner.graph.node.append(node)
    assert samples_of(inner.graph) == 2
    with pytest.raises(GraphError, match="stands in a branch or a loop"):
        sampling_as_gathers(inner)


@pytest.mark.parametrize(
    ("maps", "grid", "asked", "says"),
    [
        ([1, 2, 4, 4], [1, 3, 3, 2], {"mode": "nearest"}, "'here/GridSample' has the mode nearest"),
        ([1, 2, 4, 4], [1, 3, 3, 2], {"padding_mode": "border"}, "and the padding border; only bilinear"),
        (
            [1, 2, "H", 4],
            [1, 3, 3, 2],
            {},
            r"has maps of 1×2×\?×4 and points of 1×3×3×2; it can be written as",
        ),
        ([1, 2, 4, 4], [1, "P", 3, 2], {}, r"points of 1×\?×3×2"),
        ([1, 2, 4200, 4200], [1, 3, 3, 2], {}, r"as gathers they have at most 16,777,216 pixels"),
    ],
)
def test_what_cannot_be_written_is_refused(maps, grid, asked, says):
    with pytest.raises(GraphError, match=says):
        sampling_as_gathers(graph(maps, grid, **asked))
