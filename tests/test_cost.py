"""Multiply-adds against PyTorch's own counter and the paper; bytes against hand-made graphs, tensor by tensor."""

import json
import logging
import warnings
from collections import Counter

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.utils.flop_counter import FlopCounterMode

from segdeploy.cli import main
from segdeploy.errors import GraphError
from segdeploy.graph.cost import cost_of
from segdeploy.graph.layers import all_macs
from segdeploy.networks.backbones.mit import MitConfig
from segdeploy.networks.segformer.deployed import DeployedSegformer
from segdeploy.networks.segformer.plain import Segformer, SegformerConfig

WIDE = (64, 128, 320, 512)
PAPER = {  # widths, depths, the head's size, and GMACs at ADE20K 512×512, which the paper calls GFLOPs
    "b0": ((32, 64, 160, 256), (2, 2, 2, 2), 256, 8.4),
    "b1": (WIDE, (2, 2, 2, 2), 256, 15.9),
    "b2": (WIDE, (3, 4, 6, 3), 768, 62.4),
    "b3": (WIDE, (3, 4, 18, 3), 768, 79.0),
    "b4": (WIDE, (3, 8, 27, 3), 768, 95.7),
}


def network(name, depths=None):
    widths, full, head, _ = PAPER[name]
    return Segformer(SegformerConfig(150, MitConfig(widths, depths or full), head)).eval()


def by_torch(network, height, width):
    """Multiply-adds, without computing them: two FLOPs each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.to("meta")(torch.zeros(1, 3, height, width, device="meta"))
    return counter.get_total_flops() // 2


def graph_of(network, height, width):
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        example = (torch.zeros(1, 3, height, width),)
        program = torch.onnx.export(network, example, dynamo=True, opset_version=18, verbose=False)
    return program.model_proto


@pytest.mark.slow
@pytest.mark.parametrize(
    "deployed", [pytest.param(False, marks=pytest.mark.thorough), True], ids=["plain", "deployed"]
)
def test_multiply_adds_are_pytorchs(deployed):
    plain = network("b0", (1, 2, 1, 1))
    counted = DeployedSegformer(plain).eval() if deployed else plain
    model = graph_of(counted, 96, 160)
    assert cost_of(model).macs == all_macs(model) == by_torch(counted, 96, 160)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_pytorchs_counter_finds_the_papers_figures(name):
    with torch.device("meta"):
        plain = network(name)
    assert by_torch(plain, 512, 512) / 1e9 == pytest.approx(PAPER[name][3], abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [("b0",), pytest.param(("b2", "b3", "b4"), marks=pytest.mark.thorough)], ids="".join
)
def test_our_count_finds_the_papers_figures(names):
    """With a block per stage counted in a graph, and the others as often as the network has them."""
    model = graph_of(network(names[0], (1, 1, 1, 1)), 512, 512)
    stages = Counter()
    for kernel in cost_of(model).kernels:
        stages[stage_of(kernel.name, model)] += kernel.all_macs
    for name in names:
        _, depths, _, paper = PAPER[name]
        total = stages[None] + sum(depth * stages[stage] for stage, depth in enumerate(depths))
        assert total / 1e9 == pytest.approx(paper, abs=0.15)


def stage_of(node, model):
    """The stage whose block a node is in; None outside blocks."""
    (made,) = [one for one in model.graph.node if one.name == node]
    facts = {item.key: item.value for item in made.metadata_props}
    scopes = facts["pkg.torch.onnx.name_scopes"]
    blocks = [scope for scope in scopes.split("'") if scope.startswith("segformer.encoder.block.")]
    return int(blocks[0].split(".")[3]) if blocks else None


# ---- bytes -----------------------------------------------------------------------------------------------------


def made(nodes, outputs, weights, batch=1):
    """A graph on a float input 2×8×8 `x`."""
    values = [helper.make_tensor_value_info(name, kind, [batch, *shape]) for name, kind, shape in outputs]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2, 8, 8])
    initialisers = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, [1.0] * torch.Size(shape).numel())
        for name, shape in weights.items()
    ]
    graph = helper.make_graph(nodes, "g", [x], values, initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs, [output], name=f"net.{output}/{kind}", **attributes)


def bytes_of(model, precision=None):
    return {kernel.group: kernel.activation_bytes for kernel in cost_of(model, precision).kernels}


X, MAP = 2 * 8 * 8 * 4, 4 * 8 * 8 * 4  # bytes of the input and of four channels in FP32
POINTWISE = {"w": [4, 2, 1, 1], "v": [4, 4, 1, 1]}


def test_what_is_computed_of_one_tensor_costs_nothing():
    nodes = [
        node("Conv", ["x", "w"], "a"),
        node("Relu", ["a"], "b"),
        node("Transpose", ["b"], "c", perm=[0, 1, 3, 2]),
        node("Conv", ["c", "v"], "d"),
    ]
    model = made(nodes, [("d", TensorProto.FLOAT, [4, 8, 8])], POINTWISE)
    assert bytes_of(model) == {"net.a": X + MAP, "net.d": MAP + MAP}
    assert cost_of(model).macs == 2 * 4 * 64 + 4 * 4 * 64
    assert cost_of(model).weight_bytes == 4 * (8 + 16)


def test_a_sum_is_made_with_the_product_and_read_once():
    nodes = [
        node("Conv", ["x", "w"], "a"),
        node("Conv", ["a", "v"], "b"),
        node("Add", ["a", "b"], "c"),
        node("Conv", ["c", "v"], "d"),
    ]
    model = made(nodes, [("d", TensorProto.FLOAT, [4, 8, 8])], POINTWISE)
    assert bytes_of(model) == {"net.a": X + MAP, "net.b": MAP + MAP, "net.d": MAP + MAP}
    assert cost_of(model).weight_bytes == 4 * (8 + 16)  # `v` counts once


def test_a_sum_of_small_tensors_is_made_where_it_is_read():
    resize = {"mode": "linear"}
    nodes = [
        node("Conv", ["x", "w"], "a"),
        node("Conv", ["x", "s"], "b", strides=[4, 4]),
        node("Conv", ["x", "s"], "c", strides=[4, 4]),
        node("Resize", ["b", "", "four"], "B", **resize),
        node("Resize", ["c", "", "four"], "C", **resize),
        node("Add", ["B", "C"], "d"),
        node("Add", ["d", "a"], "e"),
    ]
    weights = POINTWISE | {"s": [4, 2, 1, 1], "four": [4]}
    model = made(nodes, [("e", TensorProto.FLOAT, [4, 8, 8])], weights)
    next(item for item in model.graph.initializer if item.name == "four").CopyFrom(
        helper.make_tensor("four", TensorProto.FLOAT, [4], [1.0, 1.0, 4.0, 4.0])
    )
    assert bytes_of(model) == {
        "net.a": X + MAP + 2 * MAP // 16,
        "net.b": X + MAP // 16,
        "net.c": X + MAP // 16,
    }


def attention():
    nodes = [
        node("Reshape", ["x", "rows"], "t"),
        node("MatMul", ["t", "q"], "Q"),
        node("MatMul", ["t", "k"], "K"),
        node("Transpose", ["K"], "Kt", perm=[0, 2, 1]),
        node("MatMul", ["Q", "Kt"], "scores"),
        node("Softmax", ["scores"], "P", axis=-1),
        node("MatMul", ["P", "t"], "y"),
    ]
    model = made(nodes, [("y", TensorProto.FLOAT, [64, 2])], {"q": [2, 2], "k": [2, 2]})
    model.graph.initializer.append(helper.make_tensor("rows", TensorProto.INT64, [3], [0, 64, 2]))
    return model


def test_attention_is_one_kernel_and_its_scores_stay_inside():
    model = attention()
    assert bytes_of(model) == {"net.Q": 2 * X, "net.K": 2 * X, "net.scores": 4 * X}
    kernel = cost_of(model).kernels[-1]
    assert (kernel.macs, kernel.attention_macs) == (0, 2 * 64 * 64 * 2)


def test_eight_bits_leave_attention_and_the_interface_as_they_are():
    assert bytes_of(attention(), "fp16") == {
        "net.Q": X + X // 2,
        "net.K": X + X // 2,
        "net.scores": X + X + X,
    }
    # Q and K are read by attention in FP16 at eight bits as well; the input and the output stay FP32.
    assert bytes_of(attention(), "int8") == bytes_of(attention(), "fp16")
    chain = [node("Conv", ["x", "w"], "a"), node("Conv", ["a", "v"], "d")]
    model = made(chain, [("d", TensorProto.FLOAT, [4, 8, 8])], POINTWISE)
    assert bytes_of(model, "int8") == {"net.a": X + MAP // 4, "net.d": MAP // 4 + MAP}
    assert cost_of(model, "int8").weight_bytes == 8 + 16


def test_raising_and_the_arg_max_read_the_logits_and_write_labels():
    nodes = [
        node("Conv", ["x", "w"], "a"),
        node("Resize", ["a", "", "two"], "b", mode="linear"),
        node("ArgMax", ["b"], "c", axis=1),
    ]
    model = made(nodes, [("c", TensorProto.INT64, [1, 16, 16])], {"w": [4, 2, 1, 1]})
    two = helper.make_tensor("two", TensorProto.FLOAT, [4], [1.0, 1.0, 2.0, 2.0])
    model.graph.initializer.append(two)
    assert bytes_of(model) == {"net.a": X + MAP, "output": MAP + 16 * 16 * 8}


@pytest.mark.slow
def test_the_batch_changes_nothing_of_one_image(graphs):
    open_one, fixed = onnx.load(graphs("nvinfer", None)), onnx.load(graphs("nvinfer", 1))
    three = onnx.load(graphs("nvinfer", 3))
    expected = cost_of(fixed)
    for model in (open_one, three):
        found = cost_of(model)
        assert (found.macs, found.activation_bytes) == (expected.macs, expected.activation_bytes)
    assert all_macs(three) == all_macs(fixed) == expected.macs


def test_groups_add_up(graphs):
    cost = cost_of(onnx.load(graphs()))
    groups = cost.groups()
    assert sum(group.all_macs for group in groups) == cost.macs
    assert sum(group.weight_bytes for group in groups) == cost.weight_bytes
    assert len({group.group for group in groups}) == len(groups) < len(cost.kernels)
    assert "stages.1.ffn.expand" in {group.group for group in groups}


def test_an_optimised_graph_is_refused():
    model = made([node("Conv", ["x", "w"], "a")], [("a", TensorProto.FLOAT, [4, 8, 8])], {"w": [4, 2, 1, 1]})
    model.graph.node[0].domain = "com.microsoft"
    with pytest.raises(GraphError, match=r"holds a com\.microsoft::Conv \(net\.a/Conv\)"):
        cost_of(model)


def test_an_open_size_is_refused():
    model = made([node("Conv", ["x", "w"], "a")], [("a", TensorProto.FLOAT, [4, 8, 8])], {"w": [4, 2, 1, 1]})
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(GraphError, match="fixed height and width"):
        cost_of(model)


# ---- the command -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_inspect_shows_the_cost(graphs, capsys):
    assert main(["inspect", "--cost", "--json", str(graphs())]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["gmacs"] == pytest.approx(
        sum(g["macs"] + g["attention_macs"] for g in facts["groups"]) / 1e9
    )
    assert main(["inspect", "--cost", "--device", "t4", "--precision", "int8", str(graphs())]) == 0
    said = capsys.readouterr().out
    assert "stages.1.ffn.expand" in said
    assert "floor on t4, int8, batch 1" in said
    assert "prediction, not measured: " in said
    measured = ["--device", "t4", "--measured", "20", "--json", str(graphs())]
    assert main(["inspect", "--cost", *measured]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["achieved_share"] == pytest.approx(facts["floor"]["ms"] / 20)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--device", "b9000"], "no device is called 'b9000'; known: jetson-orin-nano-8gb, "),
        (["--device", "t4", "--precision", "fp8"], "T4 has no figure for fp8; known of it: fp16, int8"),
        (["--measured", "3"], "--measured 3.0 needs the --device it was measured on"),
    ],
)
def test_bad_requests(graphs, capsys, flags, words):
    assert main(["inspect", "--cost", *flags, str(graphs())]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "1e999"])
def test_a_time_that_cannot_have_been_measured(value, graphs, misused):
    said = misused("inspect", "--cost", "--device", "t4", "--measured", value, graphs())
    assert said.endswith(f"argument --measured: {value} is outside 0.0001 to 1,000,000,000.0")


def test_a_measured_time_without_its_device_is_not_passed_over(graphs, capsys):
    assert main(["inspect", "--measured", "3", str(graphs())]) == 1
    said = "segdeploy: --measured 3.0 needs the --device it was measured on\n"
    assert capsys.readouterr() == ("", said)


def test_a_precision_that_no_device_has_a_figure_for(misused):
    said = misused("inspect", "--cost", "--device", "t4", "--precision", "fp4", "x.onnx")
    assert "argument --precision: invalid choice: 'fp4' (choose from " in said
