"""Mask2Former as a file: three interfaces, any batch, both forms, FP16, INT8, and NVIDIA's own builder."""

import json

import mask2former_checkpoint as checkpoints
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from conftest import CLASSES
from safetensors.torch import load_file, save_file

from segdeploy import files, networks
from segdeploy.assess.bench.pytorch import open_eager
from segdeploy.cli import main
from segdeploy.convert import export
from segdeploy.convert.engine.build import build_from
from segdeploy.convert.engine.request import EngineRequest
from segdeploy.convert.export import export_onnx
from segdeploy.convert.int8.quantize import Request, quantize
from segdeploy.errors import EngineError, RequestError
from segdeploy.flavour import open_flavour
from segdeploy.graph.gathers import sampling_as_gathers
from segdeploy.graph.load import read_graph
from segdeploy.graph.plugins import DEFORMABLE, plugins_of, without_plugins
from segdeploy.model.engine import Profile
from segdeploy.model.record import read_record
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.interface import card_of
from segdeploy.prove.opening import open_session
from segdeploy.run.tensorrt.compatibility import rebuild
from segdeploy.scenes import write_cityscapes
from segdeploy.size import Size

pytestmark = pytest.mark.slow

MEAN, STD = np.array([123.675, 116.28, 103.53], np.float32), np.array([58.395, 57.12, 57.375], np.float32)
ONE_SCALE = np.float32(0.01735207357279195)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("m2f") / "small")


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """Its labels change from pixel to pixel, so that more of them are near a border than a street has."""
    folder = tmp_path_factory.mktemp("card")
    labels = [{"name": name, "colour": [10 * place] * 3} for place, name in enumerate(CLASSES)]
    (folder / "labels.yaml").write_text(json.dumps({"classes": labels}))
    facts = {
        "family": "mask2former", "checkpoint": "none", "size": "96x160", "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "labels": "labels.yaml", "resize": "pillow", "licence": "none",
        "min_pixel_agreement_fp16": 0.985,
    }  # fmt: skip
    (folder / "noisy.yaml").write_text(json.dumps(facts))
    return str(folder / "noisy.yaml")


@pytest.fixture(scope="module")
def exported(written, tmp_path_factory):
    """`exported("frames", "gather")`: each kind made once, with its batch open."""
    made, folder = {}, tmp_path_factory.mktemp("graphs")

    def graph(interface, form=None):
        if (interface, form) not in made:
            path = folder / f"{form or 'usual'}.{interface}.onnx"
            made[interface, form] = export_onnx(
                written, interface=interface, batch=None, msda=form, output=path
            )
        return made[interface, form]

    return graph


@pytest.fixture(scope="module")
def halved(written, exported, card, tmp_path_factory):
    """`halved("gather")`: in FP16, each form made once, with its batch open."""
    made, folder = {}, tmp_path_factory.mktemp("half")

    def graph(form):
        if form not in made:
            traced = onnx.load(exported("frames", form).path)  # which takes three quarters of an export
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(export, "trace", lambda *given: traced)
                made[form] = export_onnx(
                    written,
                    card=card,
                    interface="frames",
                    batch=None,
                    msda=form,
                    fp16=True,
                    output=folder / form,
                )
        return made[form]

    return graph


def reference(folder, frames):
    pixels = torch.from_numpy((frames - MEAN) / STD).permute(0, 3, 1, 2)
    with torch.inference_mode():
        scores = networks.build(read_checkpoint(folder)).plain(pixels)
        labels = F.interpolate(scores, frames.shape[1:3], mode="bilinear", align_corners=False).argmax(1)
    return scores.numpy(), labels.numpy()


def run(model, inputs):
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def test_in_openvino_sampled_points_are_added_one_by_one(exported):
    path = exported("logits", "gridsample").path
    sums = 3 * 2  # levels of layers
    frames = np.random.default_rng(3).integers(0, 256, (2, 96, 160, 3), np.uint8)
    pixels = np.ascontiguousarray((ONE_SCALE * (frames - MEAN)).transpose(0, 3, 1, 2))
    expected = run(path, pixels)
    with open_session(path, provider="openvino") as session:
        assert session.ran["sampled points"] == f"{sums} sums in one pass each"
        np.testing.assert_allclose(session.run(pixels), expected, atol=1e-4 * np.ptp(expected))


@pytest.mark.parametrize(
    ("interface", "form"),
    [
        ("frames", "gather"),
        pytest.param("nvinfer", None, marks=pytest.mark.thorough),
        ("logits", "gridsample"),
    ],
)
def test_each_interface_answers_for_every_slot(interface, form, written, exported):
    path = exported(interface, form).path
    frames = np.random.default_rng(2).integers(0, 256, (3, 96, 160, 3), np.uint8)
    scores, labels = reference(written, frames)
    assert np.bincount(labels.ravel()).min() > 1000  # of each of five classes
    eaten = frames
    if interface != "frames":
        eaten = np.ascontiguousarray((ONE_SCALE * (frames - MEAN)).transpose(0, 3, 1, 2))
    answer = run(path, eaten)
    if interface == "logits":
        assert answer.shape == (3, 5, 24, 40)
        np.testing.assert_allclose(answer, scores, atol=1e-4 * np.ptp(scores))
    else:
        assert np.mean(answer.reshape(labels.shape) == labels) >= 0.9999


def test_the_published_order_is_exported_and_proven_as_such(written, exported, tmp_path):
    """Its labels are those of masks that are raised to the image before they are summed, and no others."""
    made = export_onnx(
        written, interface="frames", batch=2, postprocess="published", msda="gridsample", output=tmp_path
    )
    assert made.agreement.pixel_agreement >= 0.9999
    frames = np.random.default_rng(5).integers(0, 256, (2, 96, 160, 3), np.uint8)
    pixels = torch.from_numpy((frames - MEAN) / STD).permute(0, 3, 1, 2)
    with torch.inference_mode():
        classes, masks = networks.build(read_checkpoint(written)).plain.predict(pixels)
        masks = F.interpolate(masks, (96, 160), mode="bilinear", align_corners=False).sigmoid()
        scores = torch.einsum("nqc,nqhw->nchw", classes.softmax(-1)[..., :-1], masks)
    labels = run(made.path, frames)
    assert np.mean(labels == scores.argmax(1).numpy()) >= 0.9999
    assert 0.5 < np.mean(labels == run(exported("frames", "gather").path, frames)) < 0.999
    asked = read_checkpoint(written, None, {"postprocess": "published"})
    assert networks.build(asked).deployed.output.logits_size(Size(96, 160)) == Size(96, 160)


def test_the_graph_has_nothing_that_depends_on_the_data(exported):
    model = onnx.load(exported("logits", "gridsample").path)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    kinds = [node.op_type for node in model.graph.node]
    assert not {"NonZero", "Shape", "Expand", "ScatterND", "Loop", "If", "Einsum", "Pad", "Tile"} & set(kinds)
    layers, pixel_layers, blocks = 3, 2, 5
    assert kinds.count("GridSample") == 3 * pixel_layers
    assert kinds.count("Softmax") == blocks + pixel_layers + 2 * layers + 1
    # a cut and a join for each block, and three mergings
    assert kinds.count("Gather") == 2 * blocks + 3
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert "network.backbone.stages.1.blocks.0.attention.triple/Gemm" in names
    assert "network.decoder.layers.2.look.key/MatMul" in names
    assert {"Sub", "Transpose", "Cast", "Resize", "ArgMax"} >= {name for name in names if "/" not in name}
    assert "network.pixels.layers.1.attention.sample/Split" in names
    gather = [node.op_type for node in onnx.load(exported("frames", "gather").path).graph.node]
    assert "GridSample" not in gather
    assert gather.count("GatherND") == 2 * pixel_layers


def test_masks_are_made_where_they_are_needed(exported):
    """Only the last ones have a quarter of the image's 24x40; the others have 3x5, 6x10 and 12x20."""
    model = onnx.shape_inference.infer_shapes(onnx.load(exported("logits", "gridsample").path))
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in model.graph.value_info
    }
    wide = [
        shapes[node.output[0]]
        for node in model.graph.node
        if node.op_type == "MatMul" and node.output[0] in shapes
    ]
    masks = [shape[2] for shape in wide if shape[1:2] == [10] and shape[2] in (15, 60, 240, 960)]
    assert masks == [15, 60, 240, 960]


def test_the_plugin_is_written_and_proven_by_a_stand_in(written, exported):
    made = exported("frames", "plugin")
    model = onnx.load(made.path)
    nodes = [node for node in model.graph.node if node.op_type == DEFORMABLE]
    assert [(node.domain, len(node.input), len(node.output)) for node in nodes] == [("trt.plugins", 5, 1)] * 2
    assert {item.domain for item in model.opset_import} == {"", "trt.plugins"}
    stored = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    sides, first = (stored[name] for name in nodes[0].input[1:3])
    assert (sides.tolist(), first.tolist()) == ([[3, 5], [6, 10], [12, 20]], [0, 15, 75])
    assert (sides.dtype, first.dtype) == (np.int32, np.int32)
    assert (
        made.record.agreement.compared_with == "PyTorch FP32, with 2 TensorRT plugins computed by GridSample"
    )
    assert len(plugins_of(model)) == 2
    stand_in = without_plugins(model)
    onnx.checker.check_model(stand_in, full_check=True)
    frames = np.random.default_rng(4).integers(0, 256, (2, 96, 160, 3), np.uint8)
    assert np.mean(run(stand_in, frames) == reference(written, frames)[1]) >= 0.9999


def test_a_plugin_in_fp16_is_refused(written, exported):
    card = card_of(read_checkpoint(written), None)
    path = exported("frames", "plugin").path
    with pytest.raises(RequestError, match="the graph has 2 TensorRT plugins, whose FP16 cannot be proven"):
        export.prove_fp16(onnx.load(path), path, [], None, card, path.name)


@pytest.mark.parametrize("form", ["gridsample", pytest.param("gather", marks=pytest.mark.thorough)])
@pytest.mark.thorough
def test_fp16_agrees_and_nvidias_builder_takes_it(form, halved):
    made = halved(form)
    assert made.record.agreement.pixel_agreement >= 0.99
    assert len(made.record.islands) < made.record.cost["nodes"] / 4
    # how far a point is from its pixel is told in FP32: FP16 knows a place of 500 to a half only
    distance = "network.pixels.layers.0.attention.sample/Sub"
    assert (distance in made.record.islands, f"{distance}.2" in made.record.islands) == (
        form == "gather",
        False,
    )
    demand_engine(made.path, None)


@pytest.mark.thorough
@pytest.mark.parametrize(("interface", "form"), [("frames", "gather"), ("logits", "gridsample")])
def test_nvidias_builder_takes_fp32_with_an_open_batch(interface, form, exported):
    demand_engine(exported(interface, form).path, None)


def demand_engine(path, batch):
    pytest.importorskip("tensorrt_rtx", reason="pip install 'segdeploy[rtx]'")
    from test_rtx import engine_of

    assert engine_of(path, batch).stat().st_size > 1 << 17


def engine_of(path, folder, runtime="tensorrt", **asked):
    return build_from(path, EngineRequest(**asked), folder, flavour=open_flavour(runtime))


REPORTED = (
    "TensorRT 10.16.1 is reported to compute them wrongly without an error: NVIDIA/TensorRT#4813 (GridSample in"
    " deformable attention, TensorRT 10.13 to 11.1)"
)


@pytest.mark.parametrize(
    ("version", "asked", "form", "note"),
    [
        ("10.3.0", None, "gridsample", ""),
        (
            "10.16.1",
            None,
            "gather",
            f"6 GridSample nodes were built as gathers: {REPORTED}. For a Mask2Former,",
        ),
        ("10.16.1", "gridsample", "gridsample", f"{REPORTED}; --msda gridsample asked for it"),
        ("10.3.0", "gather", "gather", "6 GridSample nodes were built as gathers: --msda gather"),
        (
            "11.4.0",
            None,
            "gridsample",
            "nothing is known of TensorRT 11.4.0; --msda gather avoids them",
        ),
    ],
)
def test_the_build_picks_the_form_by_the_version(
    version, asked, form, note, exported, tensorrt_here, tmp_path
):
    there = tensorrt_here(version)
    path = exported("frames", "gridsample").path
    done = engine_of(path, tmp_path, msda=asked)
    assert ("GridSample" in there.parsed, "GatherND" in there.parsed) == (
        form == "gridsample",
        form == "gather",
    )
    assert note in " ".join(done.advice)
    assert bool(note) == bool(done.advice)
    sampling = done.record.engine.sampling
    assert (sampling.nodes, sampling.form) == (6, form)
    assert ("--msda" in rebuild(done.record)) == (asked is not None)
    assert sampling.why in "".join(done.advice)
    assert done.record.engine.graph.digest == files.digest_of(path)  # what it is compared with
    assert list(tmp_path.glob("*.onnx")) == []


def test_a_graph_of_gathers_is_built_as_it_is(exported, tensorrt_here, tmp_path):
    tensorrt_here("10.16.1")
    path = exported("frames", "gather").path
    done = engine_of(path, tmp_path, msda="gridsample")
    assert done.record.engine.sampling is None
    assert done.advice == ["--msda gridsample: there is no GridSample in gather.frames.onnx"]
    assert engine_of(path, tmp_path).advice == []


@pytest.mark.parametrize(("form", "asked"), [("gather", None), ("gridsample", "gather")])
def test_where_tensorrt_chooses_types_places_are_counted_in_fp32(
    form, asked, exported, tensorrt_here, tmp_path
):
    there = tensorrt_here("8.6.1")
    engine_of(exported("frames", form).path, tmp_path, msda=asked, fp16=True)
    assert ("OBEY_PRECISION_CONSTRAINTS",) in there.arguments_of("set_flag")
    kept = {
        name.rpartition("/")[2].partition(".")[0]
        for name, kind in there.kept
        if str(kind) == "DataType.FLOAT"
    }
    assert {"Floor", "Max", "Min", "Mul", "Add"} <= kept
    assert not {"MatMul", "Softmax", "LayerNormalization"} & kept
    there.kept.clear()
    engine_of(exported("frames", "gridsample").path, tmp_path, fp16=True)
    assert there.kept == []


def test_what_cannot_be_built_as_gathers_is_refused(exported, tensorrt_here, tmp_path):
    there = tensorrt_here("10.16.1")
    model = onnx.load(exported("frames", "gridsample").path)
    node = next(node for node in model.graph.node if node.op_type == "GridSample")
    (padding,) = [item for item in node.attribute if item.name == "padding_mode"]
    padding.s = b"border"
    path = tmp_path / "border.onnx"
    onnx.save(model, path)
    with pytest.raises(EngineError) as refusal:
        engine_of(path, tmp_path)
    assert str(refusal.value) == (
        f"border.onnx has 6 GridSample nodes (opset 17); {REPORTED}, and the GridSample {node.name!r} has the mode"
        " bilinear and the padding border; only bilinear sampling with zeros around it can be written as gathers."
        " Instead export it again with: segdeploy export CHECKPOINT --msda gather; or build it with a TensorRT"
        " that is not of these; or build it as it is: --msda gridsample"
    )
    tensorrt_here("10.3.0")
    with pytest.raises(EngineError, match=r"--msda gather asked for gathers, .*\. Leave out --msda gather$"):
        engine_of(path, tmp_path, msda="gather")
    assert [path.name for path in tmp_path.iterdir()] == ["border.onnx"]
    assert there.arguments_of("build_serialized_network") == []


def test_the_graph_says_how_much_of_it_counts_places(exported):
    counted = [read_graph(exported("frames", form).path).counts for form in ("gridsample", "gather")]
    assert counted[0] == 0 < counted[1]


def test_sampling_as_gathers_changes_no_label(written, exported):
    frames = np.random.default_rng(9).integers(0, 256, (2, 96, 160, 3), np.uint8)
    gathers = sampling_as_gathers(onnx.load(exported("logits", "gridsample").path))
    pixels = ((frames - MEAN) * ONE_SCALE).transpose(0, 3, 1, 2).astype(np.float32)
    scores, labels = reference(written, frames)
    np.testing.assert_allclose(run(gathers, pixels), scores, atol=1e-4 * np.ptp(scores))
    gathers = sampling_as_gathers(onnx.load(exported("frames", "gridsample").path))
    assert np.mean(run(gathers, frames) == labels) >= 0.9999


@pytest.mark.parametrize("fp16", [pytest.param(False, marks=pytest.mark.thorough), True])
@pytest.mark.thorough
def test_nvidias_builder_takes_what_is_built_as_gathers(fp16, exported, halved, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="pip install 'segdeploy[rtx]'")
    path = (halved if fp16 else lambda form: exported("frames", form))("gridsample").path
    done = engine_of(path, tmp_path, "tensorrt-rtx", msda="gather", profile=Profile(1, 1, 2))
    assert done.record.engine.sampling.form == "gather"
    assert done.record.precision == ("fp16" if fp16 else "fp32")


def test_a_plugin_builds_where_it_is_and_is_compared_with_what_it_computes(exported, tensorrt_here, tmp_path):
    tensorrt_here("10.16.1")
    path = exported("frames", "plugin").path
    record = engine_of(path, tmp_path).record
    assert record.engine.graph.name == path.name
    other = engine_of(exported("frames", "gather").path, tmp_path).record
    assert record.engine.golden == other.engine.golden
    for asked in ("fp16", "int8"):
        with pytest.raises(
            RequestError, match=f"--{asked} is judged in ONNX Runtime.*leave out --{asked}, or export"
        ):
            engine_of(path, tmp_path, **{asked: True})


def test_rtx_has_no_plugins(exported, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="pip install 'segdeploy[rtx]'")
    with pytest.raises(
        EngineError, match=r"2 nodes of TensorRT's plugin .* --msda gather, or build it with --runtime"
    ):
        engine_of(exported("frames", "plugin").path, tmp_path, "tensorrt-rtx")
    assert list(tmp_path.iterdir()) == []


def test_another_task_on_the_command_line(written, tmp_path, capsys):
    folder = tmp_path / "mask2former-panoptic"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (folder / name).write_bytes((written / name).read_bytes())
    out = tmp_path / "out"
    request = [
        "export",
        str(folder),
        "--msda",
        "gather",
        "--interface",
        "frames",
        "-o",
        str(out),
    ]
    assert main(request) == 1
    assert "or take this one with --any-task" in capsys.readouterr().err
    assert main([*request, "--any-task"]) == 0
    assert "pixels equal" in capsys.readouterr().out
    (path,) = out.glob("*.onnx")
    assert "GatherND" in read_record(path).cost


def test_msda_is_refused_where_there_is_none(tiny, refused):
    with pytest.raises(
        RequestError, match=r"^--msda is for a Mask2Former, and .* is a SegFormer; leave it out$"
    ):
        export_onnx(tiny, msda="gather")
    assert "leave it out" in refused("export", tiny, "--msda", "gather")


def test_int8_through_the_quantiser(exported, tmp_path):
    write_cityscapes(tmp_path, 8, seed=700, height=96, width=160)
    request = Request(images=tmp_path / "leftImg8bit", probes=2, max_drop=100, equalise="off")
    done = quantize(exported("frames", "gather").path, request, output=tmp_path / "out")
    assert done.record.calibration.int8_share > 0.9
    kinds = [node.op_type for node in onnx.load(done.path).graph.node]
    assert kinds.count("QuantizeLinear") > 40


@pytest.mark.thorough
def test_int8_with_fp16_through_the_quantiser(exported, tmp_path):
    write_cityscapes(tmp_path, 8, seed=700, height=96, width=160)
    request = Request(images=tmp_path / "leftImg8bit", probes=2, max_drop=100, equalise="off", fp16=True)
    mixed = quantize(exported("frames", "gridsample").path, request, output=tmp_path).path
    model = onnx.load(mixed)
    assert [item.version for item in model.opset_import] == [19]
    blocked = next(node for node in model.graph.node if node.op_type == "ReduceMax")
    axes = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}[blocked.input[1]]
    assert (axes.tolist(), [item.name for item in blocked.attribute]) == ([-1], ["keepdims"])
    demand_engine(mixed, None)


def test_the_record_names_the_network(exported):
    record = json.loads(exported("frames", "gridsample").path.with_suffix(".onnx.json").read_text())
    assert record["source"]["layout"] == "hub"
    assert record["cost"]["GridSample"] == 6


@pytest.mark.thorough
def test_what_comes_near_the_end_of_fp16_stays_in_fp32(written, card, tmp_path):
    """The same function, with one layer's inner activations large and the weights behind them small."""
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((written / name).read_bytes())
    weights = load_file(written / "model.safetensors")
    layer = "model.pixel_level_module.decoder.encoder.layers.1"
    for name, factor in (("fc1.weight", 2**13), ("fc1.bias", 2**13), ("fc2.weight", 2**-13)):
        weights[f"{layer}.{name}"] *= factor
    save_file(weights, tmp_path / "model.safetensors")
    made = export_onnx(tmp_path, card=card, interface="logits", fp16=True, output=tmp_path)
    assert [name for name in made.record.islands if "pixels.layers" in name] == [
        "network.pixels.layers.1.expand/MatMul",
        "network.pixels.layers.1.expand/Add",
        "network.pixels.layers.1/Relu",
        "network.pixels.layers.1.shrink/MatMul",
    ]
    assert made.agreement.logits_error < 0.05


def test_pytorch_runs_the_deployed_network_as_the_plain_one(written):
    """Its constants are of one size: whoever opens it has to make them."""
    answers = []
    for network in ("plain", "deployed"):
        with open_eager(str(written), network=network, interface="logits") as session:
            pixels = np.random.default_rng(0).standard_normal(
                (1, *session.signature.input.shape[1:]), np.float32
            )
            answers.append(session.run(pixels))
    np.testing.assert_allclose(*answers, atol=1e-4 * np.ptp(answers[0]))
