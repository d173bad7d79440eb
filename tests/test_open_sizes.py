"""One graph of several sizes answers at each as a graph of that size alone; what has constants of one is refused."""

import json

import cv2
import numpy as np
import onnx
import pytest
import torch
from conftest import run_model
from mmseg_checkpoint import write as write_mmseg
from onnx import numpy_helper

from segdeploy.cli import main
from segdeploy.convert.adopt.adopt import adopt
from segdeploy.convert.export import export_onnx
from segdeploy.convert.fp16 import write_fp16
from segdeploy.errors import GraphError, RequestError
from segdeploy.graph.load import read_graph
from segdeploy.graph.open_sizes import fixed_at, opened_sides, reopened
from segdeploy.model.record import read_record
from segdeploy.run.session import open_session, segment
from segdeploy.scenes import make_scene
from segdeploy.size import Size, parse_sizes

SIZES = ("64x96", "72x136")  # 72 and 136 are no multiples of 16: resizes have other scales there
BOTH = ",".join(SIZES)


@pytest.fixture(scope="module")
def several(tiny, tmp_path_factory):
    """Both sizes in one graph, and each by itself."""
    folder = tmp_path_factory.mktemp("sizes")
    alone = {size: export_onnx(tiny, size=size, interface="frames", output=folder).path for size in SIZES}
    return export_onnx(tiny, size=BOTH, interface="frames", batch=None, output=folder).path, alone


def noise(size, batch=1):
    return np.random.default_rng(3).integers(0, 256, (batch, size.height, size.width, 3), np.uint8)


@pytest.mark.thorough
def test_it_answers_as_the_graph_of_each_size(several):
    path, alone = several
    whole = onnx.load(path)
    assert [dim.dim_param or dim.dim_value for dim in whole.graph.input[0].type.tensor_type.shape.dim] == [
        "batch", "height", "width", 3,
    ]  # fmt: skip
    for text, one in alone.items():
        frames = noise(Size.parse(text))
        expected = run_model(onnx.load(one), frames)
        assert np.array_equal(run_model(whole, frames), expected)
        fixed = fixed_at(whole, (None, *frames.shape[1:]))
        onnx.checker.check_model(fixed, full_check=True)
        assert np.array_equal(run_model(fixed, frames), expected)
        assert not any(node.op_type in ("Shape", "Concat") for node in fixed.graph.node)
        assert np.array_equal(run_model(reopened(fixed, whole), frames), expected)


@pytest.mark.slow
def test_few_nodes_compute_shapes(several):
    path, alone = several
    extra = len(onnx.load(path).graph.node) - len(onnx.load(alone[SIZES[0]]).graph.node)
    assert extra <= 16


def test_the_record_has_each_sizes_agreement(several):
    record = read_record(several[0])
    assert record.size == BOTH
    assert set(record.ledger[0].by_size) == set(SIZES)
    assert min(record.ledger[0].by_size.values()) >= 0.9999
    assert f"({SIZES[0]}: " in record.agreement_in_words


@pytest.mark.slow
def test_a_frame_is_taken_at_the_size_that_fits_it(several):
    path, alone = several
    with open_session(path) as session:
        for text, one in alone.items():
            size = Size.parse(text)
            frame = make_scene(1, 2 * size.height, 2 * size.width).image
            with open_session(one) as single:
                assert np.array_equal(segment(session, frame).labels, segment(single, frame).labels)


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_chosen_size_is_the_only_one(several, provider):
    path, alone = several
    frame = make_scene(1, 128, 192).image
    with (
        open_session(path, size=Size(72, 136), provider=provider) as session,
        open_session(alone["72x136"], provider=provider) as single,
    ):
        assert session.signature.size == Size(72, 136)
        assert not session.signature.sizes
        assert np.array_equal(segment(session, frame).labels, segment(single, frame).labels)


@pytest.mark.slow
def test_a_size_that_it_does_not_have(several):
    path, alone = several
    with (
        open_session(path) as session,
        pytest.raises(RequestError, match="64x96,72x136, and 64x64 was asked"),
    ):
        session.run(noise(Size(64, 64)))
    with pytest.raises(RequestError, match=r"export it again with --size 64x96,72x136,64x128$"):
        open_session(path, size=Size(64, 128))
    with pytest.raises(RequestError, match="has the one size 64x96, and 72x136 was asked for"):
        open_session(alone["64x96"], size=Size(72, 136))


@pytest.mark.slow
def test_quantised_and_in_fp16(several, images, tmp_path):
    path, _ = several
    half = write_fp16(path, output=tmp_path)
    assert half.graph.signature.sizes == parse_sizes(BOTH)
    assert set(half.record.ledger[-1].by_size) == set(SIZES)
    words = [
        "--images",
        str(images),
        "--count",
        "8",
        "--probes",
        "2",
        "--max-drop",
        "100",
        "-o",
        str(tmp_path),
    ]
    assert main(["quantize", str(path), "--size", "72x136", "--method", "minmax", *words]) == 0
    made = next(tmp_path.glob("*.int8.onnx"))
    step = read_record(made).ledger[-1]
    assert set(step.by_size) == set(SIZES)
    with open_session(made) as session:
        assert session.run(noise(Size(64, 96))).shape == (1, 64, 96)


@pytest.mark.slow
def test_fp16_from_the_checkpoint(tiny, tmp_path):
    made = export_onnx(tiny, size=BOTH, fp16=True, output=tmp_path)
    assert [set(step.by_size) for step in made.record.ledger] == [set(SIZES)] * 2
    assert read_graph(made.path).precision.fp16


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of the exporter whose graphs have open sides as others' do
def test_an_adopted_graph(tmp_path):
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 4, 1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 5, 1),
        torch.nn.Upsample(scale_factor=2),
    )
    theirs = tmp_path / "theirs.onnx"
    torch.onnx.export(
        network, (torch.zeros(1, 3, 64, 96),), theirs, dynamo=False, opset_version=13,
        input_names=["images"], output_names=["logits"], dynamic_axes={"images": {2: "h", 3: "w"}},
    )  # fmt: skip
    adopted = adopt(theirs, size=BOTH, interface="frames", output=tmp_path)
    assert set(adopted.record.ledger[0].by_size) == set(SIZES)
    with open_session(adopted.path) as session:
        assert [session.run(noise(size)).shape[1:] for size in parse_sizes(BOTH)] == [(64, 96), (72, 136)]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("64x96,64x96", "the size 64x96 was asked for twice"),
        (",".join(f"{64 + 8 * place}x96" for place in range(40)), "more than 8 sizes were asked for"),
        ("64x96,", "'' is not a size"),
    ],
)
def test_sizes_that_are_none(size, message, misused):
    assert message in misused("export", "nowhere", "--size", size)
    assert message in misused("adopt", "x.onnx", "--size", size)


OF_ONE_SIZE = ("deeplabv3plus_r18-d8", "segformer_swin")


@pytest.mark.parametrize(
    "name", ["pspnet_r18-d8", *(pytest.param(one, marks=pytest.mark.thorough) for one in OF_ONE_SIZE)]
)
def test_a_network_with_constants_of_one_size(name, tmp_path, refused):
    """Pooling of a PSP or an ASPP head is a product with a constant of one size, and windows are."""
    checkpoint = write_mmseg(tmp_path / "x.pth", name)
    said = refused("export", checkpoint, "--size", "64x96,96x128")
    assert "cannot be one graph of the sizes 64x96,96x128: " in said
    assert "export each size by itself: --size 64x96" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", pytest.param("fcn_r18-d8", marks=pytest.mark.thorough)])
def test_networks_without_constants_of_a_size(name, tmp_path):
    checkpoint = write_mmseg(tmp_path / "x.pth", name)
    made = export_onnx(checkpoint, size="64x96,96x128", interface="frames", output=tmp_path)
    assert set(made.record.ledger[0].by_size) == {"64x96", "96x128"}
    assert made.agreement.pixel_agreement >= 0.9999
    with open_session(made.path) as session:
        assert [session.run(noise(Size(*size))).shape[1:] for size in ((64, 96), (96, 128))] == [
            (64, 96),
            (96, 128),
        ]


def test_other_steps_at_another_size():
    def model(*kinds):
        nodes = [
            onnx.helper.make_node(kind, [f"x{place}"], [f"x{place + 1}"], kind)
            for place, kind in enumerate(kinds)
        ]
        ends = [
            onnx.helper.make_tensor_value_info(name, 1, [1, 3, 64, 64]) for name in ("x0", f"x{len(kinds)}")
        ]
        return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:]))

    sizes = parse_sizes(BOTH)
    with pytest.raises(GraphError, match="it has more steps at one size"):
        opened_sides([model("Relu"), model("Relu", "Relu")], sizes)
    with pytest.raises(GraphError, match="Relu is another step at each size"):
        opened_sides([model("Relu"), model("Sigmoid")], sizes)


def test_sides_that_no_tensor_has():
    def model(rows):
        shape = numpy_helper.from_array(np.array([1, 3, rows, 4096 // rows]), "to")
        node = onnx.helper.make_node("Reshape", ["x", "to"], ["y"], "spread")
        ends = [
            onnx.helper.make_tensor_value_info(*one)
            for one in (("x", 1, [1, 3, 64, 64]), ("y", 1, [1, 3, rows, 4096 // rows]))
        ]
        return onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [shape]))

    with pytest.raises(GraphError, match="no tensor before spread has the sides"):
        opened_sides([model(32), model(16)], parse_sizes(BOTH))


@pytest.mark.slow
def test_inspect_and_evaluate_and_bench(several, images, capsys):
    path, _ = several
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size"] == BOTH
    costs = []
    for size in SIZES:
        assert main(["inspect", str(path), "--cost", "--json", "--size", size]) == 0
        costs.append(json.loads(capsys.readouterr().out)["gmacs"])
    assert costs[0] < costs[1]
    assert (
        main(["bench", str(path), "--size", "72x136", "--duration", "0.05", "--warmup", "0", "--json", "-"])
        == 0
    )
    assert '"size": "72x136"' in capsys.readouterr().out


@pytest.mark.slow
def test_run_chooses_by_the_flag(several, tmp_path, capsys):
    path, _ = several
    cv2.imwrite(str(tmp_path / "x.png"), make_scene(1, 128, 192).image)
    words = ["run", str(path), str(tmp_path / "x.png"), "-o", str(tmp_path / "out")]
    assert main([*words, "--size", "72x136"]) == 0
    assert main([*words, "--size", "64x64"]) == 1
    assert "has the sizes 64x96,72x136, and 64x64 was asked for" in capsys.readouterr().err


def test_deepstream_scales_to_one_size(several, refused):
    assert "export it at the one that your cameras fit: --size 64x96" in refused(
        "deepstream", "config", several[0]
    )


@pytest.mark.parametrize("parser", [[], ["--parser", "segdeploy"]])
def test_deepstream_refuses_it_before_its_parser(several, parser, refused):
    said = refused("deepstream", "config", several[0], *parser)
    assert "has the sizes 64x96,72x136, and nvinfer scales every stream to one" in said
    assert "parser" not in said


def test_triton_serves_one_size(several, refused):
    said = refused("triton", several[0])
    assert "has the sizes 64x96,72x136, and clients ask a served model for its one size" in said
    assert "export it at the one that your frames fit: --size 64x96" in said


def test_each_size_is_tuned_by_itself(several, refused):
    assert "each size has a best way of its own" in refused("tune", several[0])


def test_metadata_that_does_not_hold(several, tmp_path):
    model = onnx.load(several[0])
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 80
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(GraphError, match="its sizes are 64x96,72x136, and its input is"):
        read_graph(tmp_path / "x.onnx", weights=False)
