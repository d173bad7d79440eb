"""Distilling: what a student is drawn to, by whom, and on top of what."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import mmseg_checkpoint
import torch
from conftest import CLASSES, TINY, write_checkpoint
from test_finetune import MAPPING, RECIPE, SIZE, city, request_of, words  # noqa: F401 - fixtures

from segdeploy import scenes
from segdeploy.cli import main
from segdeploy.convert.export import export_onnx
from segdeploy.errors import RequestError, TrainingError
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.picture.image import read_frame
from segdeploy.size import Size
from segdeploy.train.crops import Crops
from segdeploy.train.distil import NetworkTeacher, SessionTeacher, by_channel_loss, distil
from segdeploy.train.finetune import finetune, split_off

OF_THE_DATA = ("road", "house", "green", "sky", "car")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    wide = {**TINY, "hidden_sizes": [16, 16, 24, 48]}
    folder = write_checkpoint(tmp_path_factory.mktemp("teacher") / "wide", wide, OF_THE_DATA[::-1], seed=5)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "licence": "research only"}))
    return folder


@pytest.fixture(scope="module")
def graph(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    return export_onnx(teacher, size="64x96", interface="logits", batch=2, output=folder).path


def test_the_divergence_by_hand():
    """One channel of two places, halves against a quarter and three quarters; what is added to all changes nothing."""
    student, teacher = torch.zeros(1, 1, 1, 2), torch.tensor([0.25, 0.75]).log().reshape(1, 1, 1, 2)
    expected = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    assert float(by_channel_loss(student, teacher, 1.0)) == pytest.approx(expected, rel=1e-5)
    assert float(by_channel_loss(student + 7, teacher - 3, 1.0)) == pytest.approx(expected, rel=1e-5)
    assert float(by_channel_loss(student, teacher * 4, 4.0)) == pytest.approx(16 * expected, rel=1e-5)
    both = torch.cat([teacher, teacher], 1)
    assert float(by_channel_loss(both, both, 4.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_a_teacher_answers_for_the_wanted_classes(teacher, graph):
    pixels = torch.randint(0, 256, (2, 3, *SIZE), generator=torch.Generator().manual_seed(1)).float()
    answer, shown = NetworkTeacher(str(teacher), OF_THE_DATA, "cpu")(pixels)
    assert (answer.shape[1], shown.shape[1]) == (5, 48)
    by_graph, nothing = SessionTeacher(graph, OF_THE_DATA, RECIPE)(pixels)
    assert nothing is None
    assert torch.allclose(answer, by_graph, atol=1e-4)
    (third,), _ = NetworkTeacher(str(teacher), ["sky"], "cpu")(pixels[:1])
    assert torch.allclose(third[0], answer[0, OF_THE_DATA.index("sky")], atol=1e-6)


@pytest.mark.slow
def test_a_student_is_drawn_to_its_teacher(tiny, teacher, request_of, tmp_path):  # noqa: F811
    """On images that it did not learn from, its answer is nearer to the teacher's than without."""
    request = request_of(replace(RECIPE, answer_weight=30.0))
    taught = distil(str(teacher), tiny, request, output=tmp_path / "taught")
    alone = finetune(tiny, request, output=tmp_path / "alone")
    assert (taught.training.teacher, alone.training.teacher) == (str(teacher), None)
    licence = f"{alone.training.licence}; research only"
    assert taught.training.licence == licence
    assert json.loads((taught.folder / "preprocessor_config.json").read_text())["licence"] == licence
    assert f"and of its teacher's, wide: {licence}" in (taught.folder / "README.md").read_text()
    frames = np.stack([read_frame(pair.image) for pair in request.reported.pairs])
    wanted, taught_answer, own_answer = (
        NetworkTeacher(str(folder), OF_THE_DATA, "cpu")(torch.from_numpy(frames).permute(0, 3, 1, 2).float())[
            0
        ]
        for folder in (teacher, taught.folder, alone.folder)
    )
    assert by_channel_loss(taught_answer, wanted, 4.0) < 0.9 * by_channel_loss(own_answer, wanted, 4.0)


@pytest.mark.slow
def test_a_student_of_another_family_learns_in_bf16(teacher, request_of, tmp_path):  # noqa: F811
    """A PSPNet, whose last map has another size and type than the teacher's."""
    student = mmseg_checkpoint.write(tmp_path / "psp.pth", "pspnet_r18-d8")
    recipe = replace(RECIPE, steps=1, precision="bf16")
    done = distil(str(teacher), student, request_of(recipe, size=Size(*SIZE)), output=tmp_path / "out")
    assert read_checkpoint(done.folder).family.name == "mmseg"
    assert [step.name for step in done.training.ledger] == ["distilled"]


@pytest.mark.slow
def test_the_command(tiny, graph, city, tmp_path, capsys):  # noqa: F811
    given = ["distil", str(graph), *words(city, tiny)[1:], "--answer-weight", "2", "--temperature", "2"]
    assert main([*given, "-o", str(tmp_path / "out")]) == 0
    assert "next: segdeploy export" in capsys.readouterr().err


def test_every_second_crop_is_of_an_image_without_labels(request_of, city):  # noqa: F811
    request, images = request_of(), sorted((city / "leftImg8bit/val").rglob("*.png"))
    crops = Crops(request.dataset, replace(RECIPE, flip=False, distort=False), (0, 0, 0), tuple(images))
    chosen = [crops.chosen(slot, np.random.default_rng(slot)) for slot in range(12)]
    assert sorted(chosen[::2]) == [(place, None) for place in range(6)]
    assert sorted(chosen[1:7:2]) == [(place, None) for place in range(6, 9)]
    assert [bool((crops.drawn(slot)[1] == 255).all()) for slot in range(4)] == [False, True] * 2
    rare = replace(crops, recipe=replace(RECIPE, rare=True))
    assert [rare.chosen(slot, np.random.default_rng(slot))[1] is None for slot in range(4)] == [
        False,
        True,
    ] * 2


@pytest.mark.slow
def test_images_without_labels(tiny, teacher, city, request_of, tmp_path, refused, capsys):  # noqa: F811
    """They change what is learnt, are told of, and are looked at before the first step, as those with labels are."""
    others = tmp_path / "others"
    scenes.write_cityscapes(others, 2, 77, "train", *SIZE)
    shutil.rmtree(others / "gtFine")
    _, watched = split_off(request_of(RECIPE).dataset)
    (others / "watched.png").symlink_to(
        watched.pairs[0].image
    )  # the best step is chosen by it: it is left out
    given = ["distil", str(teacher), *words(city, tiny)[1:], "--steps", "1"]
    for name, more in (("without", []), ("with", ["--unlabelled", str(others)])):
        assert main([*given, *more, "-o", str(tmp_path / name)]) == 0
    with_them, without = (tmp_path / name / "model.safetensors" for name in ("with", "without"))
    assert with_them.read_bytes() != without.read_bytes()
    record = json.loads((tmp_path / "with/segdeploy.training.json").read_text())
    assert (record["images"], record["unlabelled_images"]) == (5, 2)
    card = (tmp_path / "with/README.md").read_text()
    assert "on five train and 2 images without labels, taught by wide, with `segdeploy distil`." in card
    cut = sorted(others.rglob("*.png"))[1]
    cut.write_bytes(cut.read_bytes()[:200])
    capsys.readouterr()
    assert cut.name in refused(*given, "--unlabelled", others)
    assert "3 images are both learnt from and reported on" in refused(
        *given, "--unlabelled", city / "leftImg8bit/val"
    )


@pytest.mark.slow
def test_teachers_that_cannot_teach(tiny, graphs, graph, teacher, request_of, tmp_path):  # noqa: F811
    for other, error, said in (
        (str(tiny), TrainingError, "knows no house, green; a teacher has every class that is learnt"),
        (
            str(graphs("frames")),
            RequestError,
            "gives labels only; a teacher gives logits: export it with --interface",
        ),
        (
            str(graphs("logits")),
            RequestError,
            "takes 1 of 96x160, and crops are 2 of 64x96; export it with --size 64x96",
        ),
        (str(tmp_path / "none.engine"), RequestError, "there is no file"),
    ):
        with pytest.raises(error) as refusal:
            distil(other, tiny, request_of(), output=tmp_path / "out")
        assert said in str(refusal.value)
    assert not (tmp_path / "out").exists()
    assert "sky" in MAPPING
    assert len(CLASSES) == 5


def test_a_recipe_of_no_teacher_has_no_flags_of_one(tiny, city, misused):  # noqa: F811
    assert "unrecognized arguments: --temperature 2" in misused(
        *words(city, tiny), "--temperature", "2", "-o", "x"
    )
