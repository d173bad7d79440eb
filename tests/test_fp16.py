import onnx
import pytest
from onnx import TensorProto

from segdeploy.convert import fp16
from segdeploy.convert.fp16 import write_fp16
from segdeploy.errors import ExportDisagrees, GraphError
from segdeploy.graph.fp16 import to_fp16
from segdeploy.graph.int8 import quantised
from segdeploy.graph.layers import layers_of
from segdeploy.graph.precision import digest_of_scales, read_precision
from segdeploy.model.record import read_record
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.judge import Judge, Verdict
from segdeploy.run.session import open_session
from segdeploy.scenes import write_cityscapes


@pytest.mark.slow
def test_a_graph_in_fp16_and_how_well_it_agrees(graphs, tmp_path):
    half = write_fp16(graphs("nvinfer"), output=tmp_path, command="segdeploy build-engine x.onnx --fp16")
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
        assert session.signature.batch == 1
    assert record.batch == 1


@pytest.mark.slow
def test_the_batch_stays_open(graphs, tmp_path):
    half = write_fp16(graphs("frames", None), output=tmp_path)
    with open_session(half.path) as session:
        assert session.signature.batch is None
    assert half.record.batch is None


@pytest.mark.slow
def test_on_images_of_ones_own(graphs, tmp_path):
    write_cityscapes(tmp_path / "city", 3, seed=4, height=96, width=160)
    half = write_fp16(graphs("frames"), images=tmp_path / "city" / "leftImg8bit", output=tmp_path / "out")
    assert half.record.agreement.pixels == 3 * 96 * 160


@pytest.mark.slow
def test_a_quantised_graph_becomes_int8_and_fp16(graphs, tmp_path):
    model = onnx.load(graphs("frames"))
    layers = layers_of(model)
    path = tmp_path / "x.onnx"
    onnx.save(quantised(model, {layer.root: 0.05 for layer in layers}, [layers[3].name]), path)
    half = write_fp16(path, output=tmp_path)
    made = onnx.load(half.path)
    assert str(read_precision(made)) == half.record.precision == "int8+fp16"
    assert made.opset_import[0].version == 19
    assert digest_of_scales(made) != digest_of_scales(model)


@pytest.mark.slow
def test_fp16_once_is_enough(graphs, tmp_path):
    half = write_fp16(graphs("frames"), output=tmp_path)
    with pytest.raises(GraphError, match="is FP16 already"):
        write_fp16(half.path, output=tmp_path / "again")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seen", "refused"),
    [
        (Agreement(8, 1000, 995, 0.5, 5e-3), None),  # the largest error says nothing: one place may flip
        (Agreement(8, 1000, 994, 0.0, 0.0), r"99\.4000% of 1,000 pixels equal .*"),
        (Agreement(8, 1000, 1000, 6e-3, 5.1e-3), r"6\.0e-03 of their range \(5\.1e-03 root mean square\)"),
    ],
)  # fmt: skip
def test_what_fp16_spoils_is_refused(seen, refused, graphs, tmp_path, monkeypatch):
    """Labels and logits each by themselves."""
    monkeypatch.setattr(Judge, "verdict", lambda judge, model: Verdict(seen))
    if refused is None:
        assert write_fp16(graphs("frames"), output=tmp_path / "out").record.agreement.pixels == 1000
        return
    match = (
        rf"^tiny\.frames\.1\.onnx in FP16 disagrees with itself in FP32: .*{refused}; demanded are 99\.50% of the"
        r" pixels and 5e-03 as the logits' root mean square error\. Name what suffers under keep_fp32 in a card, or"
        r" leave out --fp16\. No file was written$"
    )
    with pytest.raises(ExportDisagrees, match=match):
        write_fp16(graphs("frames"), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_logits_that_fp16_spoils_without_a_label_are_seen(graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(fp16, "to_fp16", with_larger_logits(1.3))
    with pytest.raises(
        ExportDisagrees, match=r": 99\.[5-9]\d+% of .* equal over 8 inputs, .* root mean square"
    ):
        write_fp16(graphs("frames"), output=tmp_path / "out")


def with_larger_logits(times):
    """FP16 that makes every logit larger by the same factor, so that no label changes."""

    def write(model, *given):
        half = to_fp16(model, *given)
        for item in half.graph.initializer:
            if ".classifier." in item.name:
                values = onnx.numpy_helper.to_array(item)
                item.CopyFrom(onnx.numpy_helper.from_array((values * times).astype(values.dtype), item.name))
        return half

    return write


@pytest.mark.slow
def test_numbers_that_fp16_cannot_hold_are_named(graphs, tmp_path, monkeypatch):

    monkeypatch.setattr(fp16, "first_not_finite", lambda model, inputs: "network.head/Mul")
    with pytest.raises(
        ExportDisagrees,
        match=r"^in FP16 the node 'network\.head/Mul' of tiny\.frames\.1\.onnx gives an infinity or a NaN on the images"
        r" that it is judged on\. Name what suffers under keep_fp32",
    ):
        write_fp16(graphs("frames"), output=tmp_path / "out")
