import onnx
import pytest
from onnx import TensorProto

from segdeploy.convert import fp16
from segdeploy.convert.fp16 import write_half
from segdeploy.errors import ExportDisagrees, GraphError
from segdeploy.graph.int8 import quantised
from segdeploy.graph.layers import layers_of
from segdeploy.graph.precision import digest_of_scales, read_precision
from segdeploy.model.record import read_record
from segdeploy.run.session import open_session
from segdeploy.scenes import write_cityscapes


def test_a_graph_in_fp16_and_how_well_it_agrees(graphs, tmp_path):
    half = write_half(graphs("nvinfer"), output=tmp_path, command="segdeploy build-engine x.onnx --fp16")
    assert half.path == tmp_path / "tiny.nvinfer.1.fp16.onnx"
    record = read_record(half.path)
    assert record == half.record
    assert record.precision == "fp16"
    assert record.agreement.compared_with == "the FP32 graph"
    assert 0.995 <= record.agreement.pixel_agreement < 1
    assert 0 < record.agreement.logits_error < 1e-2
    assert [step.name for step in record.ledger] == ["fp32", "fp16"]
    assert record.verdict.startswith("FP16 changes ")
    assert record.classes == ("road", "kerb", "sky", "car", "bus")
    model = onnx.load(half.path)
    assert str(read_precision(model)) == "fp16"
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert {item.key: item.value for item in model.metadata_props}["segdeploy.precision"] == "fp16"
    with open_session(half.path) as session:
        assert session.signature.labels.names == ("road", "kerb", "sky", "car", "bus")


def test_the_batch_stays_open(graphs, tmp_path):
    half = write_half(graphs("frames", None), output=tmp_path)
    with open_session(half.path) as session:
        assert session.signature.batch is None
    assert half.record.batch is None


def test_on_images_of_ones_own(graphs, tmp_path):
    write_cityscapes(tmp_path / "city", 3, seed=4, height=96, width=160)
    half = write_half(graphs("frames"), images=tmp_path / "city" / "leftImg8bit", output=tmp_path / "out")
    assert half.record.agreement.pixels == 3 * 96 * 160


def test_a_quantised_graph_becomes_int8_and_fp16(graphs, tmp_path):
    model = onnx.load(graphs("frames"))
    layers = layers_of(model)
    path = tmp_path / "x.onnx"
    onnx.save(quantised(model, {layer.root: 0.05 for layer in layers}, [layers[3].name]), path)
    half = write_half(path, output=tmp_path)
    made = onnx.load(half.path)
    assert str(read_precision(made)) == half.record.precision == "int8+fp16"
    assert made.opset_import[0].version == 19
    assert digest_of_scales(made) != digest_of_scales(model)


def test_fp16_once_is_enough(graphs, tmp_path):
    half = write_half(graphs("frames"), output=tmp_path)
    with pytest.raises(GraphError, match="is FP16 already"):
        write_half(half.path, output=tmp_path / "again")


def test_what_fp16_spoils_is_refused(graphs, tmp_path, monkeypatch):
    """A bound that allows nothing: FP16 always changes a logit."""

    monkeypatch.setattr(fp16, "MAX_LOGITS_RMS_FP16", 0.0)
    with pytest.raises(
        ExportDisagrees, match=r"disagrees with itself in FP32: .*allowed are 99\.50% and 0e\+00"
    ):
        write_half(graphs("frames"), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_that_fp16_cannot_hold_are_named(graphs, tmp_path, monkeypatch):

    monkeypatch.setattr(fp16, "first_not_finite", lambda model, inputs: "network.head/Mul")
    with pytest.raises(
        ExportDisagrees, match=r"the node 'network\.head/Mul' of tiny.* name it under keep_fp32"
    ):
        write_half(graphs("frames"), output=tmp_path / "out")
