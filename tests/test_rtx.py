"""NVIDIA's own parser and builder take every graph; TensorRT-RTX builds without a GPU."""

import fan_checkpoint
import hub_checkpoints
import mmseg_checkpoint
import onnx
import pytest

from segdeploy.convert.engine.build import build_from
from segdeploy.convert.engine.request import EngineRequest
from segdeploy.convert.export import export_onnx
from segdeploy.convert.int8.quantize import Request, quantize
from segdeploy.flavour import open_flavour
from segdeploy.graph.fp16 import to_fp16
from segdeploy.model.engine import Profile

pytestmark = pytest.mark.slow

pytest.importorskip("tensorrt_rtx", reason="pip install 'segdeploy[rtx]'")


def engine_of(path, batch):
    """Built as `segdeploy build-engine` builds it, beside its graph; that it cannot run here is in its record."""
    request = EngineRequest(targets=("sm_86",), profile=None if batch else Profile(1, 2, 4))
    built = build_from(path, request, path.parent, flavour=open_flavour("tensorrt-rtx"))
    assert built.record.engine.targets == ("sm_86",)
    return built.path


def thorough(*values):
    return pytest.param(*values, marks=pytest.mark.thorough)


KINDS = [
    ("nvinfer", "256x512", 1),
    thorough("frames", "97x131", None),
    thorough("frames", "97x131", 1),
    thorough("logits", "97x131", 1),
    thorough("nvinfer", "97x131", 4),
]


@pytest.mark.parametrize(("interface", "size", "batch"), KINDS)
def test_the_bundled_b0_builds(interface, size, batch, bundled):
    assert engine_of(bundled(interface, size, batch), batch).stat().st_size > 1 << 20


@pytest.mark.parametrize(("interface", "size", "batch"), [KINDS[0], *KINDS[2:]])
def test_the_bundled_b0_builds_in_fp16(interface, size, batch, bundled, tmp_path):
    path = tmp_path / "half.onnx"
    onnx.save(to_fp16(onnx.load(bundled(interface, size, batch))), path)
    assert engine_of(path, batch).stat().st_size > 1 << 20


@pytest.mark.parametrize(
    "keep", ["*LayerNormalization", "network.head*", *map(thorough, ("*Softmax", "*Conv", "*MatMul"))]
)
def test_fp32_islands_build(keep, graphs, tmp_path):
    path = tmp_path / "islands.onnx"
    onnx.save(to_fp16(onnx.load(graphs("frames")), [keep]), path)
    engine_of(path, 1)


@pytest.mark.parametrize(
    ("interface", "size", "fp16"),
    [
        thorough("nvinfer", "96x160", False),
        thorough("frames", "97x131", True),
    ],
)
def test_the_bundled_b0_builds_in_int8(interface, size, fp16, bundled, images, tmp_path):
    request = Request(images=images, probes=2, max_drop=100, equalise="off", fp16=fp16)
    done = quantize(bundled(interface, size), request, output=tmp_path)
    assert done.record.calibration.int8_share == 1
    assert engine_of(done.path, 1).stat().st_size > 1 << 20


@pytest.mark.parametrize(
    ("interface", "batch", "equalise"),
    [thorough("frames", None, "off"), thorough("nvinfer", 4, "off"), thorough("frames", 1, "on")],
)
def test_int8_builds_with_batches_and_equalised(interface, batch, equalise, bundled, images, tmp_path):
    request = Request(images=images, probes=2, max_drop=100, equalise=equalise)
    graph = quantize(bundled(interface, "97x131", batch), request, output=tmp_path).path
    assert engine_of(graph, batch).stat().st_size > 1 << 20


@pytest.mark.parametrize(
    ("name", "size"),
    [
        thorough("basicnet", "97x131"),
        ("unet", "96x144"),
        thorough("deeplabv3plus_r18-d8_769x769", "97x131"),
        ("pspnet_r18-d8", "97x131"),
        thorough("fcn_r18-d8", "97x131"),
        thorough("segformer_swin", "97x131"),
        thorough("upernet_r18", "97x131"),
    ],
)
def test_each_head_of_mmsegmentation_builds(name, size, tmp_path):
    path = mmseg_checkpoint.write(tmp_path / f"{name}.pth", name)
    graph = export_onnx(path, size=size, interface="frames", output=tmp_path).path
    engine_of(graph, 1)
    half = tmp_path / "half.onnx"
    onnx.save(to_fp16(onnx.load(graph)), half)
    engine_of(half, 1)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.thorough
def test_an_engine_of_several_sizes_builds(precision, tiny, images, tmp_path):
    sizes = ("64x96", "72x136")
    half = precision == "fp16"
    graph = export_onnx(tiny, size=",".join(sizes), interface="frames", fp16=half, output=tmp_path).path
    if precision == "int8":
        graph = quantize(graph, Request(images=images, probes=2, max_drop=100), output=tmp_path / "int8").path
    built = build_from(graph, EngineRequest(), tmp_path, flavour=open_flavour("tensorrt-rtx"))
    assert built.record.size == ",".join(sizes)
    assert {one.size for one in built.record.engine.golden} == set(sizes)
    assert built.record.engine.bindings[0].shape == (1, None, None, 3)


@pytest.mark.slow
@pytest.mark.thorough
def test_a_fan_builds(tmp_path):
    graph = export_onnx(
        fan_checkpoint.write(tmp_path / "x.pth", "nvlabs"), size="97x131", output=tmp_path
    ).path
    engine_of(graph, 1)
    half = tmp_path / "half.onnx"
    onnx.save(to_fp16(onnx.load(graph)), half)
    engine_of(half, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [thorough("eomt"), thorough("eomt_dinov3")])
def test_eomt_builds(kind, images, tmp_path):
    folder = hub_checkpoints.write(tmp_path / kind, hub_checkpoints.eomt(kind), {"height": 64, "width": 64})
    graph = export_onnx(folder, interface="frames", output=tmp_path).path
    engine_of(graph, 1)
    if kind == "eomt_dinov3":
        request = Request(images=images, probes=2, max_drop=100, equalise="off", fp16=True)
        engine_of(quantize(graph, request, output=tmp_path).path, 1)
