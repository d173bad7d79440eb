"""Models side by side without a command line: what is scored, what is told meanwhile, and what is written."""

import json
from contextlib import contextmanager
from dataclasses import replace

import cv2
import pytest
from conftest import write_checkpoint

from segdeploy import scenes
from segdeploy.assess.evaluate.evaluate import evaluate, whole_image
from segdeploy.assess.evaluate.models import EvaluationRequest, evaluate_models, tell_apart
from segdeploy.assess.evaluate.modes import Mode
from segdeploy.cli import main
from segdeploy.datasets.layouts import open_dataset
from segdeploy.errors import EvaluationError, RequestError
from segdeploy.model.labels import read_labels
from segdeploy.run.session import open_session
from segdeploy.size import Size

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two graphs of Cityscapes' classes with random weights."""
    from segdeploy.convert.export import export_onnx

    folder = tmp_path_factory.mktemp("models")
    names = read_labels("cityscapes").names
    checkpoints = [write_checkpoint(folder / f"net{seed}", classes=names, seed=seed) for seed in (0, 1)]
    return tuple(export_onnx(one, interface="frames", output=folder).path for one in checkpoints)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    scenes.write_cityscapes(root, 3, seed=70, height=120, width=200)
    return open_dataset("cityscapes", root)


def test_each_model_gets_the_scores_that_it_gets_alone(models, dataset, tmp_path):
    told = []

    @contextmanager
    def counted(total, what):
        yield lambda: told.append((total, what))

    mode = Mode(fit="letterbox", kernel="linear")
    request = EvaluationRequest(
        models, dataset, mode, output=tmp_path / "out", report=tmp_path / "else" / "x.json", worst=0,
        corruptions=("fog",), severities=(5,),
    )  # fmt: skip
    done = evaluate_models(request, counted)
    names = [model.name for model in models]
    assert list(done.scores) == list(done.facts) == list(done.robustness) == names
    for name, model in zip(names, models, strict=True):
        with open_session(model) as session:
            alone = evaluate(whole_image(session, "letterbox", "linear"), dataset, session.signature.labels)
        assert (done.scores[name].scores.counts == alone.scores.counts).all()
        assert done.facts[name]["mode"] == "whole image, letterbox, linear"
        assert list(done.robustness[name]["corruptions"]["fog"]["severities"]) == [5]
    assert told == [
        (3, one) for name in (*names, *(f"{name}, spoilt" for name in names)) for one in [name] * 3
    ]
    written = (tmp_path / "else" / "x.json").read_text()
    assert written == (tmp_path / "out" / "evaluation.json").read_text() == done.as_text()
    assert json.loads(written)["options"] == {"fit": "letterbox", "resize": "linear"}
    assert list((tmp_path / "out").glob("*unfinished*")) == []


def test_processes_give_the_same_to_the_last_digit(models, dataset, capsys):
    words = [
        "evaluate",
        str(models[0]),
        "--dataset",
        "cityscapes",
        "--root",
        str(dataset.root),
        "--json",
        "-",
    ]
    words += ["--corruptions", "fog", "--severities", "5", "--fit", "letterbox"]
    told = []
    for more in ([], ["--processes", "2"]):
        assert main([*words, *more]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert json.loads(told[0])["robustness"]


@pytest.mark.thorough
def test_windows_and_folders_are_counted_elsewhere_too(bundled, tmp_path):
    """All that a worker is told of a mode and a data set is taken as it was meant."""
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(3):
        scene = scenes.make_scene(number, 96, 160)
        cv2.imwrite(str(tmp_path / f"images/{number}.png"), scene.image)
        cv2.imwrite(str(tmp_path / f"labels/{number}.png"), scene.labels)
    mapping = tmp_path / "m.yaml"
    known = read_labels("cityscapes").names
    mapping.write_text(f"ids: {json.dumps(dict(enumerate(known)) | {255: 'ignore'})}".replace('"', ""))
    dataset = open_dataset("folder", tmp_path, mapping=mapping).limited(2)
    mode = Mode(windows=True, stride=Size(64, 64), scales=(0.5, 1.0), flip=True)
    request = EvaluationRequest((bundled("logits", "64x96"),), dataset, mode)
    one, two = (evaluate_models(replace(request, processes=processes)).as_text() for processes in (None, 2))
    assert one == two


def test_nothing_is_made_or_scored_where_one_model_does_not_fit(models, dataset, graphs, tmp_path):
    for changed, error, words in (
        ({"models": (models[0], graphs("frames"))}, EvaluationError, "do not fit cityscapes"),
        ({"models": (models[0], models[0])}, RequestError, "a model is given twice; each is scored once"),
        ({"worst": -1}, RequestError, "-1 worst frames cannot be drawn; expected 0 or more"),
        ({"corruptions": ("rain",)}, RequestError, "no corruption is called 'rain'"),
        ({"corruptions": ("fog",), "severities": (1.5,)}, RequestError, "1.5 is not a severity"),
    ):
        request = {"models": models, "dataset": dataset, "output": tmp_path / "out"} | changed
        with pytest.raises(error, match=words):
            evaluate_models(EvaluationRequest(**request))
    assert not (tmp_path / "out").exists()


def test_models_of_one_file_name_are_told_apart_by_their_paths(tmp_path):
    assert tell_apart([tmp_path / "a/x.onnx", tmp_path / "b/y.onnx"]) == ["x.onnx", "y.onnx"]
    paths = [tmp_path / "a/x.onnx", tmp_path / "b/x.onnx"]
    assert tell_apart(paths) == [str(path) for path in paths]
