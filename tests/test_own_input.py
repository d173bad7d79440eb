"""What an adopted graph begins with: whatever is folded or joined there, the answer stays."""

import pytest
from onnx import TensorProto
from test_adopt import MEAN, STD, Net, five, logits, written

from segdeploy.convert.adopt.adopt import adopt
from segdeploy.graph.load import read_graph
from segdeploy.model.signature import ONE_SCALE


@pytest.mark.parametrize(
    ("std", "scale"),
    [(STD, ONE_SCALE), ((64.0,) * 3, 1 / 64), (None, ONE_SCALE)],
    ids=["three", "one", "assumed"],
)
def test_nvinfer_is_told_one_scale_for_all_channels(std, scale, tmp_path):
    known = {} if std is None else {"mean": MEAN, "std": std}
    done = adopt(written(logits().model(), tmp_path), output=tmp_path / "out", **known)
    assert read_graph(done.path).signature.scale == (scale,) * 3
    assert done.agreement.pixel_agreement == 1


def first_weights_read_twice():
    net = Net()
    weights = net.held(net.random.normal(0, 0.3, (3, 3, 3, 3)))
    for _ in range(2):
        net.then("Conv", weights, pads=[1] * 4).then("Relu")
    return net.body().model()


def turned_twice():
    """Channels to the front, then height and width exchanged: the second does not undo the first."""
    net = Net(last=True).then("Transpose", perm=[0, 1, 3, 2])
    return net.body().then("Transpose", perm=[0, 1, 3, 2]).raised().model()


@pytest.mark.parametrize("make", [first_weights_read_twice, turned_twice])
@pytest.mark.parametrize("interface", ["nvinfer", "frames"])
def test_what_cannot_be_folded_stays(make, interface, tmp_path):
    done = adopt(written(make(), tmp_path), interface=interface, mean=MEAN, std=STD, output=tmp_path / "out")
    assert done.agreement.pixel_agreement == 1
    assert done.agreement.logits_error < 1e-6


@pytest.mark.parametrize(("interface", "turns"), [("nvinfer", 0), ("frames", 1)])
def test_channels_are_not_turned_to_and_fro(interface, turns, tmp_path):
    """A graph with its channels last turns them to the front itself, which undoes what is put before it."""
    net = Net(last=True).body().raised().model()
    done = adopt(written(net, tmp_path), interface=interface, mean=MEAN, std=STD, output=tmp_path / "out")
    assert [node.op_type for node in read_graph(done.path).view.nodes].count("Transpose") == turns


def test_a_scale_goes_into_the_first_convolution(tmp_path):
    done = adopt(written(logits().model(), tmp_path), mean=MEAN, std=STD, output=tmp_path / "out")
    first = read_graph(done.path).view.nodes[0]
    assert (first.op_type, first.input[0]) == ("Conv", "input")


def test_the_last_of_equal_classes_stays_the_last(tmp_path):
    """ArgMax of ours takes the first of equal scores, so this one is no arg-max to strip."""
    net = logits().raised().then("ArgMax", axis=1, select_last_index=1, keepdims=0)
    done = adopt(
        written(net.model(TensorProto.INT64), tmp_path), classes=five(tmp_path), output=tmp_path / "out"
    )
    assert done.agreement.pixel_agreement == 1
    assert done.agreement.logits_error is None  # no logits were looked for
