"""NVIDIA's own parser and builder take every graph; TensorRT-RTX builds without a GPU."""

import onnx
import pytest

from segdeploy.convert.engine.build import build
from segdeploy.convert.engine.request import EngineRequest
from segdeploy.convert.export import export_onnx
from segdeploy.convert.int8.quantize import Request, quantize
from segdeploy.flavour import open_flavour
from segdeploy.graph.fp16 import to_fp16
from segdeploy.model.engine import Profile
from segdeploy.shipped import folder
from segdeploy.size import Size

pytest.importorskip("tensorrt_rtx", reason="pip install 'segdeploy[rtx]'")


def engine_of(path, batch):
    """Built as `segdeploy build-engine` builds it, beside its graph; that it cannot run here is in its record."""
    request = EngineRequest(targets=("sm_86",), profile=None if batch else Profile(1, 2, 4))
    built = build(path, request, path.parent, flavour=open_flavour("tensorrt-rtx"))
    assert built.record.engine.targets == ("sm_86",)
    return built.path


@pytest.mark.parametrize(
    ("interface", "batch"), [("nvinfer", 1), ("frames", 1), ("logits", 1), ("frames", None), ("nvinfer", 4)]
)
def test_the_bundled_b0_builds(interface, batch, tmp_path):
    exported = export_onnx(
        folder("models") / "demo-b0",
        card="segformer-b0-demo",
        interface=interface,
        batch=batch,
        size=Size(256, 512) if batch == 1 else Size(97, 131),
        output=tmp_path,
    )
    assert engine_of(exported.path, batch).stat().st_size > 1 << 20


@pytest.mark.parametrize(
    ("interface", "batch"), [("nvinfer", 1), ("frames", 1), ("logits", 1), ("frames", None)]
)
def test_the_bundled_b0_builds_in_fp16(interface, batch, tmp_path):
    exported = export_onnx(
        folder("models") / "demo-b0",
        card="segformer-b0-demo",
        interface=interface,
        batch=batch,
        fp16=True,
        size=Size(97, 131),
        output=tmp_path,
    )
    assert engine_of(exported.path, batch).stat().st_size > 1 << 20


@pytest.mark.parametrize("keep", ["*LayerNormalization", "*Softmax", "*Conv", "*MatMul", "network.head*"])
def test_fp32_islands_build(keep, graphs, tmp_path):
    path = tmp_path / "islands.onnx"
    onnx.save(to_fp16(onnx.load(graphs("frames")), [keep]), path)
    engine_of(path, 1)


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("interface", ["nvinfer", "frames", "logits"])
def test_the_bundled_b0_builds_in_int8(interface, fp16, images, tmp_path):
    exported = export_onnx(
        folder("models") / "demo-b0",
        card="segformer-b0-demo",
        interface=interface,
        size=Size(96, 160),
        output=tmp_path,
    )
    request = Request(images=images, probes=2, max_drop=100, equalise="off", fp16=fp16)
    done = quantize(exported.path, request, output=tmp_path)
    assert done.record.calibration.int8_share == 1
    assert engine_of(done.path, 1).stat().st_size > 1 << 20


@pytest.mark.parametrize(("batch", "equalise"), [(None, "off"), (3, "off"), (1, "on")])
def test_int8_builds_with_batches_and_equalised(batch, equalise, images, tmp_path):
    exported = export_onnx(
        folder("models") / "demo-b0",
        card="segformer-b0-demo",
        interface="frames",
        size=Size(96, 160),
        batch=batch,
        output=tmp_path,
    )
    request = Request(images=images, probes=2, max_drop=100, equalise=equalise)
    graph = quantize(exported.path, request, output=tmp_path).path
    assert engine_of(graph, batch).stat().st_size > 1 << 20
