"""A family is a value: what a new one costs outside its own folder is a line."""

import json
import re

import cv2
import numpy as np
import onnx
import pytest
import strided_family
import torch
import torch.nn.functional as F
from conftest import CLASSES
from strided_family import MEAN, SIZE, STD, STRIDED

from segdeploy import networks
from segdeploy.assess.evaluate.windows import sliding_window
from segdeploy.cli import main
from segdeploy.convert.export import export_onnx
from segdeploy.errors import CheckpointError, DeepStreamError, RequestError
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.family import Marks, Output, reduced
from segdeploy.run.session import open_session, segment
from segdeploy.serve.deepstream.plan import make_plan
from segdeploy.serve.deepstream.request import RenderRequest
from segdeploy.size import Size


@pytest.fixture(autouse=True)
def _joined(monkeypatch):
    strided_family.joined(monkeypatch)


@pytest.fixture(scope="module")
def strided(tmp_path_factory):
    return strided_family.write(tmp_path_factory.mktemp("strided") / "strided.pth")


@pytest.fixture(scope="module")
def made(strided, tmp_path_factory):
    """One graph of each interface."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        strided_family.joined(monkeypatch)
        folder = tmp_path_factory.mktemp("graphs")
        return {
            interface: export_onnx(strided, interface=interface, output=folder)
            for interface in ("nvinfer", "frames", "logits")
        }


def scene(height=SIZE[0], width=SIZE[1], seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 5), None, 0, 255, cv2.NORM_MINMAX)


def logits_of(strided, frame):
    pixels = (torch.from_numpy(frame.astype(np.float32)) - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.inference_mode():
        return networks.build(read_checkpoint(strided)).plain(pixels.permute(2, 0, 1)[None])


def raised(logits, size, align_corners=True):
    whole = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
    return whole.argmax(1)[0].numpy()


# ---- the next family, through everything that is there ---------------------------------------------------------


@pytest.mark.slow
def test_all_its_facts_come_out_of_its_own_file(strided, made):
    checkpoint = read_checkpoint(strided)
    assert (checkpoint.family.name, checkpoint.layout) == ("strided", "mmseg")
    assert checkpoint.options == {"slope": "cut"}
    assert list(checkpoint.config["id2label"].values()) == list(CLASSES)
    record = made["frames"].record
    assert (record.size, record.classes) == ("96x160", CLASSES)
    assert (record.normalisation.mean, record.normalisation.std) == (MEAN, STD)


@pytest.mark.parametrize("interface", ["nvinfer", "frames", "logits"])
def test_every_interface_answers_as_its_plain_network_corners_on_corners(interface, strided, made):
    frame = scene()
    logits = logits_of(strided, frame)
    expected = raised(logits, SIZE)
    assert (np.bincount(expected.ravel(), minlength=5) > 100).sum() == 4
    assert np.mean(raised(logits, SIZE, align_corners=False) == expected) < 0.95  # a silent False would show
    assert made[interface].agreement.pixel_agreement == 1
    with open_session(made[interface].path) as session:
        assert np.mean(segment(session, frame).labels == expected) >= 0.9999
        assert session.signature.align_corners
        if interface == "logits":
            assert session.signature.output.shape == (1, 5, 12, 20)
        else:
            assert (
                "labels" not in session.ran
            )  # interpolated by the graph itself: lazy labels are of centred pixels


def test_frames_of_another_size_are_answered_from_the_logits_themselves(strided, made):
    frame = cv2.resize(scene(), (210, 125), interpolation=cv2.INTER_NEAREST)
    with open_session(made["logits"].path) as session:
        fitted = cv2.resize(frame, SIZE[::-1])
        expected = raised(logits_of(strided, fitted), (125, 210))
        assert np.mean(segment(session, frame, kernel="linear").labels == expected) >= 0.999
        windows = sliding_window(session, Size(*SIZE))
        assert np.mean(windows(scene()) == raised(logits_of(strided, scene()), SIZE)) >= 0.9999


@pytest.mark.parametrize("interface", ["frames", "logits"])
def test_exact_labels_score_a_hundred_per_cent(interface, strided, made, tmp_path, capsys):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for seed in range(3):
        frame = scene(seed=seed)
        cv2.imwrite(str(tmp_path / "images" / f"{seed}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        cv2.imwrite(
            str(tmp_path / "labels" / f"{seed}.png"), raised(logits_of(strided, frame), SIZE).astype(np.uint8)
        )
    ids = ", ".join(f"{index}: {name}" for index, name in enumerate(CLASSES))
    (tmp_path / "mapping.yaml").write_text(f"ids: {{{ids}}}\nimages: images\nlabels: labels\n")
    asked = ["evaluate", str(made[interface].path), "--dataset", "folder", "--root", str(tmp_path)]
    assert main([*asked, "--mapping", str(tmp_path / "mapping.yaml"), "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["models"][0]["scores"]["miou"] >= 0.9999


@pytest.mark.slow
def test_fp16_and_an_open_batch(strided, tmp_path):
    exported = export_onnx(strided, interface="frames", batch=None, fp16=True, output=tmp_path)
    frames = np.stack([scene(seed=1), scene(seed=2)])
    with open_session(exported.path) as session:
        answers = session.run(frames)
    expected = [raised(logits_of(strided, frame), SIZE) for frame in frames]
    assert np.mean(answers == np.stack(expected)) >= 0.995


def test_the_file_says_where_the_corners_lie(made, graphs):
    for path, says in ((made["logits"].path, "true"), (graphs("logits"), None)):
        facts = {item.key: item.value for item in onnx.load(path).metadata_props}
        assert facts.get("segdeploy.align_corners") == says


def test_a_parser_that_raises_otherwise_is_refused(made):
    assert make_plan(RenderRequest(made["nvinfer"].path)).parser == "segdeploy"
    assert make_plan(RenderRequest(made["logits"].path, network_type=100)).parser is None
    with pytest.raises(DeepStreamError) as caught:
        make_plan(RenderRequest(made["logits"].path))
    assert str(caught.value) == (
        "strided.96x160.logits.onnx raises its logits with align_corners, and the parser of segdeploy raises them"
        " without; export the checkpoint with --interface nvinfer, whose graph does it itself"
    )


@pytest.mark.parametrize(
    ("size", "nearest"),
    [("100x160", "96x160, 104x160"), ("64x71", "64x64, 64x72"), ("16381x96", "16376x96, 16384x96")],
)
def test_sides_that_are_no_multiples_are_refused_with_the_nearest(size, nearest, strided, refused):
    said = refused("export", strided, "--size", size)
    assert said == (
        f"segdeploy: this network takes sides that are multiples of 8, and {size} was asked for; the nearest that fit:"
        f" {nearest}\n"
    )


def test_the_nearest_size_is_never_below_the_smallest():
    with pytest.raises(RequestError, match=r"the nearest that fit: 96x96$"):
        Output(reduced(4), multiple=48).demand(Size(64, 64))


def test_a_card_of_another_family_is_refused(tiny, tmp_path, refused):
    facts = (
        tmp_path / "x.yaml",
        "checkpoint: x\nsize: 96x160\nmean: [1, 2, 3]\nstd: [1, 2, 3]\nlabels: cityscapes\n",
    )
    for family in ("banana", "mask2former"):
        facts[0].write_text(f"{facts[1]}family: {family}\nresize: linear\nlicence: none\n")
        assert refused("export", tiny, "--card", facts[0]) == (
            f"segdeploy: the card 'x' says family '{family}', and {tiny} is a SegFormer (segformer); correct the card,"
            " or leave out --card to take the checkpoint's own facts\n"
        )


# ---- options ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_option_changes_the_network_it_belongs_to(strided, tmp_path):
    pair = networks.build(read_checkpoint(strided, options={"slope": "gentle"}))
    assert pair.plain.slope == 0.2
    exported = export_onnx(strided, slope="gentle", interface="logits", output=tmp_path)
    assert "LeakyRelu" in [node.op_type for node in onnx.load(exported.path).graph.node]


def test_options_of_others_are_refused_in_words(strided, tiny, refused, misused):
    assert refused("export", strided, "--msda", "gather") == (
        f"segdeploy: --msda is for a Mask2Former, and {strided} is a strided network; leave it out\n"
    )
    assert refused("export", tiny, "--any-task") == (
        f"segdeploy: --any-task is for a Mask2Former and an EoMT, and {tiny} is a SegFormer; leave it out\n"
    )
    assert "argument --slope: invalid choice: 'steep'" in misused("export", strided, "--slope", "steep")
    with pytest.raises(RequestError, match=r"^--slope is 'steep'; expected one of cut, gentle$"):
        export_onnx(strided, slope="steep")
    with pytest.raises(RequestError, match=r"^'outptu' is no option of an export; known: .*msda.*, slope"):
        export_onnx(tiny, outptu="x")


def test_the_help_of_export_is_made_of_the_families_options(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    for family in networks.FAMILIES:
        for option in family.options:
            assert f"{option.flag} {option.metavar}".strip() in said
            assert option.help in said


# ---- every family ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["segformer.encoder.block.0.0.x", "decode_head.classifier.weight"], "segformer"),
        (["backbone.patch_embed1.proj.weight", "decode_head.linear_pred.weight"], "segformer"),
        (["backbone.layers.0.0.projection.weight", "decode_head.fusion_conv.bn.weight"], "segformer"),
        (
            ["backbone.layers.0.0.projection.weight", "decode_head.conv_seg.weight"],
            None,
        ),  # another head on a MiT
        (["backbone.stage1.weight", "head.weight"], "strided"),
        (["backbone.stage1.weight"], None),
        (["decode_head.classifier.weight"], None),
    ],
)
def test_names_belong_to_one_family_at_most(names, family):
    found = [one.name for one in networks.FAMILIES if one.recognises(names)]
    assert found == ([family] if family else [])


def test_marks_want_all_that_is_present_and_nothing_that_is_absent():
    marks = Marks("x", (r"a\.\d", r"b\."), absent=r"c\.")
    assert marks.found(["a.1.x", "a.2.x", "b.y"]) == ["a.1", "a.2", "b."]
    assert marks.found(["a.1.x", "b.y", "c.z"]) == []
    assert marks.found(["a.1.x"]) == []


def test_strict_names_need_nothing_of_the_family(strided, tmp_path):
    content = torch.load(strided, weights_only=True)
    content["state_dict"]["backbone.stage4.weight"] = torch.zeros(1)
    del content["state_dict"]["head.bias"]
    content["state_dict"]["head.bias"] = torch.zeros(4)
    torch.save(content, tmp_path / "spoilt.pth")
    with pytest.raises(CheckpointError, match=r"has a 4-class head, but the file's meta names 5 classes"):
        read_checkpoint(tmp_path / "spoilt.pth")
    content["state_dict"]["head.bias"] = torch.zeros(5)
    torch.save(content, tmp_path / "spoilt.pth")
    with pytest.raises(CheckpointError, match=r"unexpected: steps\.3\.weight\. Check"):
        read_checkpoint(tmp_path / "spoilt.pth")


def test_all_families_are_values_that_hold():
    names = [family.name for family in networks.FAMILIES]
    assert names[-1] == "strided"
    assert len(set(names)) == len(names)
    types = [name for family in networks.FAMILIES for name in family.types]
    assert len(set(types)) == len(types)
    assert STRIDED.types == ("strided",)
    for family in networks.FAMILIES:
        assert family.title.startswith(("a ", "an "))
        for option in family.options:
            assert option.default == (option.choices[0] if option.choices else False)
