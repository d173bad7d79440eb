import json

import pytest

from segdeploy.convert.engine.layers import LayerFacts, Report, demand_precision, read_layers
from segdeploy.convert.engine.request import EngineRequest
from segdeploy.errors import EngineError
from segdeploy.flavour import Flavour, Version
from segdeploy.model.engine import LayerCounts

HERE = Flavour("tensorrt", None, Version(10, 3, 0))


def layer(name, kind, reads, writes, tactic="", metadata="", key="Format/Datatype"):
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [
            {"Name": "a", "Location": "Device", "Dimensions": [1, 8, 24, 40], key: one} for one in reads
        ],
        "Outputs": [
            {"Name": "b", "Location": "Device", "Dimensions": [1, 8, 24, 40], key: one} for one in writes
        ],
        "TacticName": tactic,
        "Metadata": metadata,
    }


OF_10 = [
    layer(
        "network.stages.0.embed/Conv", "CaskConvolution",
        ["Thirty-two wide channel vectorized row major Int8 format"],
        ["Channel major FP16 format where channel % 8 == 0"],
        "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32", "[ONNX Layer: network.stages.0.embed/Conv]",
    ),
    layer(
        "{ForeignNode[network.stages.1.blocks.1.attention.query/MatMul...network.stages.1/Add]}", "Myelin",
        ["Row major linear FP16 format"], ["Row major linear FP32"],
    ),
    layer(
        "_gemm_mha_v2_0x4cc24562", "kgen", ["Row major linear FP16 format"], ["Row major linear FP16 format"],
        metadata="[ONNX Layer: network.stages.2.blocks.0.attention/MatMul]\u001e[ONNX Layer: other]",
    ),
    layer("quantise_only", "kgen", ["Row major linear FP32"], ["Row major linear Int8 format"]),
    layer("Reformatting CopyNode", "Reformat", ["Row major linear FP32"], ["Row major linear Int8 format"]),
    layer("labels", "TopK", ["Row major linear Int32"], ["Row major linear Int32"]),
]  # fmt: skip


def test_the_inspector_of_tensorrt_10():
    report = Report("inspector", read_layers(json.dumps({"Layers": OF_10, "Bindings": ["input", "output"]})))
    assert [(one.precision, one.group) for one in report.layers] == [
        ("INT8", "stages.0.embed"),
        ("FP16", "stages.1.attention.query"),
        ("FP16", "stages.2.attention"),
        ("FP32", "quantise_only"),
    ]
    assert report.by_precision == {"FP16": 2, "FP32": 1, "INT8": 1}
    assert report.fused_attention == 1
    assert report.counts.groups["stages.0.embed"] == {"INT8": 1}


def test_the_inspector_of_tensorrt_11():
    """The type has a key of its own, and the bindings another name."""
    layers = [
        layer("a/Conv", "CaskConvolution", ["Int8"], ["FP16"], key="DataType"),
        layer("a/LayerNormalization", "kgen", ["Half"], ["Float"], key="DataType"),
    ]
    for one in layers:
        for tensor in (*one["Inputs"], *one["Outputs"]):
            tensor["Format"] = "Row major linear"
    found = read_layers(json.dumps({"Layers": layers, "I/O Tensors": []}))
    assert [one.precision for one in found] == ["INT8", "FP16"]


def test_names_alone_say_nothing():
    assert read_layers(json.dumps({"Layers": ["Conv_0", "Conv_1"], "Bindings": []})) == ()


@pytest.mark.parametrize("key", ["Format/Datatype", "DataType"])
def test_types_that_are_not_told_because_sizes_are_open(key):
    """A part of the layers would mislead: nothing is read, whatever the others say."""
    unknown = layer("a/MatMul", "kgen", ["N/A due to dynamic shapes"], ["N/A due to dynamic shapes"], key=key)
    known = layer("b/Constant", "kgen", ["Row major linear FP32"], ["Row major linear FP32"], key=key)
    assert read_layers(json.dumps({"Layers": [known, unknown]})) == ()
    idle = {**unknown, "LayerType": "Shuffle"}
    assert len(read_layers(json.dumps({"Layers": [known, idle]}))) == 1


def test_nobody_could_tell():
    report = Report("unknown", ())
    demand_precision(report, EngineRequest(fp16=True, int8=True), "x.onnx", HERE)
    assert report.counts == LayerCounts("unknown", 0, {}, {}, None)


@pytest.mark.parametrize("attention", ["_gemm_mha_v2", "fused_mha", "kgen mha f16"])
def test_fused_attention_is_known_by_its_kernel(attention):
    assert Report("inspector", (LayerFacts("x", "kgen", "FP16", attention, "g"),)).fused_attention == 1


def test_what_is_not_attention():
    facts = LayerFacts("network.alphamha2/Conv", "kgen", "FP16", "smhax", "g")
    assert Report("inspector", (facts,)).fused_attention == 0
    assert Report("network", (facts,)).fused_attention is None


def test_what_was_asked_for_must_be_there():
    plain = Report("inspector", (LayerFacts("a", "Conv", "FP32", "", "g"),))
    half = Report("inspector", (LayerFacts("a", "Conv", "FP16", "", "g"),))
    demand_precision(plain, EngineRequest(), "x.onnx", HERE)
    demand_precision(half, EngineRequest(fp16=True), "x.onnx", HERE)
    with pytest.raises(EngineError, match=r"FP16 was asked for, and none of the 1 layers .* \(1 FP32\)"):
        demand_precision(plain, EngineRequest(fp16=True), "x.onnx", HERE)
    with pytest.raises(EngineError, match=r"INT8 was asked for, and none of the 1 layers .* \(1 FP16\)"):
        demand_precision(half, EngineRequest(int8=True), "x.onnx", HERE)
