"""Tables of renames, and the strict check behind them."""

import pytest
import torch

from segdeploy.errors import CheckpointError
from segdeploy.networks.weight_names import Shapes, check_weights, listed, renamed, under

TABLE = {
    "block{s+1}.{b}.kv.*": ("stage.{s}.{b}.key.*", "stage.{s}.{b}.value.*"),
    "norm{s-1}.*": "norms.stage{s}.*",
    "{at}fc{i}.*": "{at}dense{i}.*",
    "bias_table": "table",
    "unused.*": (),
    **under("old.{b}", "new.{b}", {"in_proj_*": ("q.*", "k.*", "v.*"), "weight": "scale"}),
}


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("block1.12.kv.weight", ["stage.0.12.key.weight", "stage.0.12.value.weight"]),
        ("norm0.bias", ["norms.stage1.bias"]),
        ("x.y.fc2.weight", ["x.y.dense2.weight"]),
        ("bias_table", ["table"]),
        ("bias_tables", ["bias_tables"]),
        ("unused.a.b", []),
        ("unused", ["unused"]),
        ("old.3.in_proj_bias", ["new.3.q.bias", "new.3.k.bias", "new.3.v.bias"]),
        ("old.3.weight", ["new.3.scale"]),
        ("blockX.1.kv.weight", ["blockX.1.kv.weight"]),
    ],
)
def test_a_line_says_what_a_name_becomes(name, becomes):
    rows = torch.arange(12.0).reshape(6, 2)
    made = renamed({name: rows}, TABLE, "x")
    assert list(made) == becomes
    if becomes:
        assert torch.equal(torch.cat(list(made.values())), rows)


def test_parts_do_not_share_memory():
    first, second = renamed({"block1.0.kv.weight": torch.zeros(4, 2)}, TABLE, "x").values()
    first += 1
    assert second.sum() == 0


@pytest.mark.parametrize("tensor", [torch.zeros(5, 2), torch.tensor(1.0)])
def test_rows_that_cannot_be_shared_out_keep_their_name(tensor):
    assert list(renamed({"block1.0.kv.weight": tensor}, TABLE, "x")) == ["block1.0.kv.weight"]


def test_two_weights_of_one_name_are_refused():
    weights = {"block1.0.kv.weight": torch.zeros(2, 1), "stage.0.0.key.weight": torch.zeros(1, 1)}
    with pytest.raises(CheckpointError) as caught:
        renamed(weights, TABLE, "x")
    assert str(caught.value) == (
        "x holds stage.0.0.key.weight and another weight that stands for stage.0.0.key.weight too; expected one of them"
    )


def test_shapes_are_read_and_counted():
    shapes = Shapes(
        {"a.0.x": torch.zeros(2, 3), "a.1.x": torch.zeros(1), "a.1.y": torch.zeros(1)}, "f", "a net"
    )
    assert (shapes.of("a.0.x", 2), shapes.count("a."), shapes.count("b.")) == ((2, 3), 2, 0)
    with pytest.raises(CheckpointError, match=r"^f lacks a\.2\.x; expected every weight of a net$"):
        shapes.of("a.2.x", 1)
    with pytest.raises(CheckpointError, match=r"^f has a\.1\.x of shape \[1\]; expected 4 axes$"):
        shapes.of("a.1.x", 4)


def test_names_and_shapes_are_exactly_those_expected():
    expected = {"a": (1, 2), "b": (3,), "bn.num_batches_tracked": ()}
    weights = {"a": torch.zeros(1, 2), "b": torch.zeros(3)}
    check_weights(expected, weights, "x")
    with pytest.raises(CheckpointError) as caught:
        check_weights(expected, {"a": torch.zeros(2, 1), "c": torch.zeros(3)}, "x")
    assert str(caught.value) == (
        "x does not hold the 2 weights that its config asks for; missing: b; unexpected: c; misshapen: a [2, 1] instead"
        " of [1, 2]. Check that config and weights belong to the same model"
    )


def test_long_lists_are_cut():
    assert listed("abc") == "a, b, c"
    assert listed("abcdefgh") == "a, b, c, d, e and 3 more"
    assert listed("abc", 1) == "a and 2 more"
