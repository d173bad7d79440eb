"""The whole way on made scenes: scores, several models, going on after a stop, and every bad input at the verb."""

import json
import os

import cv2
import numpy as np
import pytest
from conftest import write_checkpoint

from segdeploy import scenes
from segdeploy.assess.evaluate.evaluate import Unfinished, evaluate, evaluation_key, look, whole_image
from segdeploy.assess.evaluate.robustness import Spoilt
from segdeploy.cli import main
from segdeploy.cli.evaluate import published_scores
from segdeploy.datasets.layouts import open_dataset
from segdeploy.errors import EvaluationError, ImageError, OutputError, RequestError
from segdeploy.model.labels import read_labels
from segdeploy.picture.image import read_frame
from segdeploy.prove.confusion import Confusion
from segdeploy.run.session import open_session, segment

CITYSCAPES = read_labels("cityscapes")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two graphs of Cityscapes' classes with random weights, of other interfaces."""
    from segdeploy.convert.export import export_onnx

    folder = tmp_path_factory.mktemp("models")
    made = []
    for seed, interface in ((0, "frames"), (1, "logits")):
        checkpoint = write_checkpoint(folder / f"net{seed}", classes=CITYSCAPES.names, seed=seed)
        made.append(export_onnx(checkpoint, interface=interface, output=folder).path)
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    scenes.write_cityscapes(folder, 6, seed=70, height=120, width=200)
    return folder


@pytest.fixture
def city(tmp_path):
    """A data set of one's own to spoil."""
    scenes.write_cityscapes(tmp_path / "city", 4, seed=70, height=64, width=128)
    return tmp_path / "city"


def answers(dataset):
    """A predictor that knows the truth of each frame, but for the top of it, which it calls a road."""
    truths = {}
    for pair in dataset.pairs:
        truth = dataset.read_truth(pair).copy()
        truth[:20] = 0
        truths[read_frame(pair.image).tobytes()] = truth
    return lambda frame: truths[frame.tobytes()]


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "callers"), [(1, 1), (3, 2)])
def test_equal_to_one_frame_after_the_other(workers, callers, models, root):
    dataset, steps = open_dataset("cityscapes", root), []
    for model in models:
        with open_session(model) as session:
            result = evaluate(
                whole_image(session, "letterbox", "linear"),
                dataset,
                session.signature.labels,
                workers=workers,
                callers=callers,
                progress=lambda: steps.append(1),
            )
            confusion = Confusion(19)
            for pair in dataset.pairs:
                predicted = segment(session, read_frame(pair.image), "letterbox", "linear").labels
                confusion.add(dataset.read_truth(pair), predicted)
        assert np.array_equal(result.scores.counts, confusion.counts)
        assert result.scores.miou == pytest.approx(confusion.miou)
        assert result.sums.hits.sum() == np.trace(confusion.counts)
        assert result.interval.low <= result.scores.miou <= result.interval.high
    assert len(steps) == 12


def test_an_evaluation_is_also_of_its_provider_and_of_when_its_labels_were_written(city):
    dataset = open_dataset("cityscapes", city)
    key = evaluation_key("a" * 64, dataset, "whole image", None)
    assert key == evaluation_key("a" * 64, dataset, "whole image", "cpu")
    assert key != evaluation_key("a" * 64, dataset, "whole image", "cuda")
    os.utime(dataset.pairs[1].truth, ns=(0, 0))
    again = evaluation_key("a" * 64, open_dataset("cityscapes", city), "whole image", None)
    assert {name for name in key if key[name] != again[name]} == {"labels"}


def test_a_known_prediction_has_known_scores(root):
    dataset = open_dataset("cityscapes", root)
    result = evaluate(answers(dataset), dataset, CITYSCAPES)
    truths = np.stack([dataset.read_truth(pair) for pair in dataset.pairs])
    wrong = np.count_nonzero((truths[:, :20] != 0) & (truths[:, :20] != 255))
    assert result.scores.pixel_accuracy == pytest.approx(1 - wrong / np.count_nonzero(truths != 255))
    sight = look(answers(dataset), dataset, CITYSCAPES, 2)
    assert sight.name == dataset.named(dataset.pairs[2].image)
    assert np.array_equal(sight.truth, truths[2])
    assert np.array_equal(sight.predicted[20:], truths[2, 20:])


class Stops:
    """Predicts until it has done so `after` times, and then is stopped by the user."""

    def __init__(self, predict, after):
        self.predict, self.left = predict, after

    def __call__(self, frame):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.predict(frame)


KEY = {"model": "a" * 64, "dataset": "b" * 64, "options": "whole image"}


def test_a_stopped_evaluation_goes_on_where_it_was(root, tmp_path):
    dataset, path = open_dataset("cityscapes", root), tmp_path / "out" / "x.unfinished"
    predict = answers(dataset)
    whole = evaluate(predict, dataset, CITYSCAPES)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Stops(predict, 2), dataset, CITYSCAPES, unfinished=Unfinished(path, KEY))
    kept = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        evaluate(Stops(predict, 1), dataset, CITYSCAPES, unfinished=Unfinished(path, KEY))
    assert path.read_bytes().startswith(kept)
    path.write_bytes(path.read_bytes()[:-5])  # cut off by a crash: the third image is done again
    steps, rest = [], Stops(predict, 4)
    result = evaluate(
        rest, dataset, CITYSCAPES, progress=lambda: steps.append(1), unfinished=Unfinished(path, KEY)
    )
    assert (rest.left, len(steps)) == (0, 6)
    assert np.array_equal(result.scores.counts, whole.scores.counts)
    assert np.array_equal(result.sums.there, whole.sums.there)
    assert result.interval == whole.interval
    evaluate(
        Stops(predict, 0), dataset, CITYSCAPES, unfinished=Unfinished(path, KEY)
    )  # nothing is left to do
    Unfinished(path, KEY).remove()
    assert not path.exists()


@pytest.mark.parametrize("changed", ["model", "dataset", "options"])
def test_what_is_left_of_another_evaluation_is_refused_with_both_keys(changed, root, tmp_path):
    dataset, path = open_dataset("cityscapes", root), tmp_path / "x.unfinished"
    with pytest.raises(KeyboardInterrupt):
        evaluate(Stops(answers(dataset), 1), dataset, CITYSCAPES, unfinished=Unfinished(path, KEY))
    other, before = KEY | {changed: "c" * 64}, path.read_bytes()
    with pytest.raises(EvaluationError) as refused:
        evaluate(answers(dataset), dataset, CITYSCAPES, unfinished=Unfinished(path, other))
    said = str(refused.value)
    assert said.startswith(
        f"{path} is left from another evaluation, of model aaaaaaaaaaaa, dataset bbbbbbbbbbbb"
    )
    assert f"this one is of {'model cccccccccccc' if changed == 'model' else 'model aaaaaaaaaaaa'}" in said
    assert f"{changed} cccccccccccc" in said
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"nothing of ours\n", b"[1]\n", b'{"model": "x"}\n'])
def test_a_file_that_is_none_of_ours_is_refused(content, root, tmp_path):
    dataset, path = open_dataset("cityscapes", root), tmp_path / "x.unfinished"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=r"x\.unfinished is not of an unfinished evaluation; delete it"):
        evaluate(answers(dataset), dataset, CITYSCAPES, unfinished=Unfinished(path, KEY))


def test_what_is_kept_goes_through_no_link(root, tmp_path):
    dataset, path = open_dataset("cityscapes", root), tmp_path / "x.unfinished"
    path.symlink_to(tmp_path / "theirs")
    with pytest.raises(OutputError, match=r"x\.unfinished cannot be written: "):
        evaluate(answers(dataset), dataset, CITYSCAPES, unfinished=Unfinished(path, KEY))
    assert not (tmp_path / "theirs").exists()


def test_a_damaged_file_is_refused(root, tmp_path):
    dataset, path = open_dataset("cityscapes", root), tmp_path / "x.unfinished"
    with pytest.raises(KeyboardInterrupt):
        evaluate(Stops(answers(dataset), 1), dataset, CITYSCAPES, unfinished=Unfinished(path, KEY))
    header, _, _ = path.read_bytes().partition(b"\n")
    for record in (np.array([99, 0], "<u4"), np.array([0, 1, 500, 1, 0], "<u4")):
        path.write_bytes(header + b"\n" + record.tobytes())
        with pytest.raises(EvaluationError, match=r"x\.unfinished is damaged; delete it to begin again"):
            evaluate(answers(dataset), dataset, CITYSCAPES, unfinished=Unfinished(path, KEY))


def test_predictions_that_do_not_fit_are_a_wrong_predictor(root):
    dataset = open_dataset("cityscapes", root)
    for wrong in (np.zeros((3, 4), np.uint8), np.zeros((120, 200), np.int64)):
        with pytest.raises(
            RequestError, match=r"a frame of \(120, 200\) got .* labels; expected its size in uint8"
        ):
            evaluate(lambda frame, wrong=wrong: wrong, dataset, CITYSCAPES)
    with pytest.raises(RequestError, match="0 workers cannot decode anything"):
        evaluate(answers(dataset), dataset, CITYSCAPES, workers=0)


def run(*arguments):
    return main(["evaluate", *map(str, arguments)])


@pytest.mark.slow
def test_the_verb_writes_tables_json_and_pictures(models, root, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(*models, "--dataset", "cityscapes", "--root", root, "-o", out, "--worst", "2") == 0
    said = capsys.readouterr().out
    assert "cityscapes val, 6 images, in %" in said
    assert said.count(models[1].name) == 2  # in the summary, and over its deltas
    report = json.loads((out / "evaluation.json").read_text())
    first, second = report["models"]
    with open_session(models[1]) as session:
        expected = evaluate(whole_image(session), open_dataset("cityscapes", root), session.signature.labels)
    assert second["scores"]["miou"] == pytest.approx(expected.scores.miou)
    assert second["delta"]["miou"] == pytest.approx(expected.scores.miou - first["scores"]["miou"])
    assert first["delta"] is None
    for name, change in second["delta"]["iou"].items():
        pair = (first["scores"]["iou"][name], second["scores"]["iou"][name])
        assert change == (None if None in pair else pytest.approx(pair[1] - pair[0]))
    stems = [model.name for model in models]
    kinds = ("classes", "confusion", "worst-01", "worst-02")
    assert {path.name for path in out.iterdir()} == {
        "evaluation.json",
        *(f"{stem}.{kind}.png" for stem in stems for kind in kinds),
    }


@pytest.mark.slow
def test_the_verb_prints_json(models, root, tmp_path, capsys):
    where = ("--dataset", "cityscapes", "--root", root, "--limit", "2")
    assert run(models[0], *where, "--json", "-") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["schema"], printed["dataset"]["images"]) == (1, 2)
    assert (
        run(models[0], *where, "--json", tmp_path / "x.json", "--fit", "letterbox", "--resize", "linear") == 0
    )
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["options"] == {"fit": "letterbox", "resize": "linear"}
    assert written["models"][0]["mode"] == "whole image, letterbox, linear"
    assert written["models"][0]["scores"] != printed["models"][0]["scores"]


@pytest.mark.slow
def test_the_verb_goes_on_after_a_stop(models, root, tmp_path, capsys, monkeypatch):
    from segdeploy.assess.evaluate import modes as module

    where = (models[0], "--dataset", "cityscapes", "--root", root)
    assert run(*where, "--json", "-") == 0
    whole = json.loads(capsys.readouterr().out)
    plain = module.whole_image
    monkeypatch.setattr(module, "whole_image", lambda *given: Stops(plain(*given), 4))
    out = tmp_path / "out"
    assert run(*where, "-o", out) == 130
    assert capsys.readouterr().err == "segdeploy: stopped\n"
    assert [path.name for path in out.iterdir()] == [f"{models[0].name}.unfinished"]
    assert run(*where, "-o", out, "--fit", "letterbox") == 1
    said = capsys.readouterr().err
    assert "from another evaluation" in said
    assert "whole image, stretch, pillow" in said
    assert "whole image, letterbox, pillow" in said
    monkeypatch.setattr(module, "whole_image", lambda *given: Stops(plain(*given), 2))
    assert run(*where, "-o", out, "--worst", "0", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == whole
    assert not list(out.glob("*.unfinished"))


@pytest.mark.slow
def test_windows_scales_and_flips(models, root, capsys):
    """models[1] is a `logits` graph of 96x160; the frames are larger or smaller as --frame says."""
    where = (models[1], "--dataset", "cityscapes", "--root", root, "--limit", "2", "--json", "-")
    modes = {}
    for flags in (
        (),
        ("--windows", "--frame", "128x256"),
        ("--scales", "1,1.5", "--flip", "--stride", "64x96"),
    ):
        assert run(*where, *flags) == 0
        printed = json.loads(capsys.readouterr().out)["models"][0]
        modes[printed["mode"]] = printed["scores"]["miou"]
    assert list(modes) == [
        "whole image, stretch, pillow",
        "windows of 96x160, stride two thirds, linear, frames in 128x256",
        "windows of 96x160, stride 64x96, linear, scales 1 1.5, flipped too",
    ]
    assert len(set(modes.values())) == 3


@pytest.mark.slow
def test_windows_need_logits(models, root, refused):
    where = ("--dataset", "cityscapes", "--root", root)
    assert "--interface logits" in refused(models[0], *where, "--windows")
    assert "ask for those with --windows" in refused(models[1], *where, "--stride", "64x64")
    assert "--fit letterbox is for whole images" in refused(models[1], *where, "--flip", "--fit", "letterbox")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--corruptions", "rain"), "no corruption is called 'rain'"),
        (("--severities", "1,2"), "--severities are of corruptions: give --corruptions too"),
    ],
)
def test_corruptions_are_looked_at_before_the_scoring(flags, words, models, root, refused, monkeypatch):
    from segdeploy.assess.evaluate import models as module

    monkeypatch.setattr(module, "evaluate", lambda *a, **k: pytest.fail("scored first"))
    assert words in refused(models[0], "--dataset", "cityscapes", "--root", root, *flags)


@pytest.mark.slow
def test_spoilt_frames_are_scored_in_a_table(models, root, capsys):
    where = (models[0], "--dataset", "cityscapes", "--root", root, "--limit", "2")
    flags = ("--corruptions", "fog,shot_noise", "--severities", "1,5")
    assert run(*where, *flags, "--json", "-") == 0
    first = capsys.readouterr().out
    ((_, table),) = json.loads(first)["robustness"].items()
    assert set(table["corruptions"]) == {"fog", "shot_noise"}
    assert set(table["corruptions"]["fog"]["severities"]) == {"1", "5"}
    assert run(*where, *flags, "--json", "-") == 0
    assert capsys.readouterr().out == first
    assert run(*where, *flags) == 0
    assert "shot_noise" in capsys.readouterr().out


@pytest.mark.slow
def test_spoilt_frames_go_on_after_a_stop(models, root, tmp_path, capsys, monkeypatch):
    from segdeploy.assess.evaluate import modes as module

    out = tmp_path / "out"
    where = (models[0], "--dataset", "cityscapes", "--root", root, "--limit", "3", "--worst", "0")
    where += ("--corruptions", "fog,shot_noise", "--severities", "1,5")
    assert run(*where, "--json", "-") == 0
    whole = json.loads(capsys.readouterr().out)
    plain, stops = module.whole_image, iter((3, 5, 7))
    monkeypatch.setattr(module, "whole_image", lambda *given: Stops(plain(*given), next(stops)))
    assert run(*where, "-o", out) == 130  # all 3 plain frames and fog 1 are done, and 2 frames of fog 5
    name = f"{models[0].name}.spoilt.unfinished"
    kept = json.loads((out / name).read_text())
    assert list(kept["scores"]) == ["fog 1"]
    fog = whole["robustness"][models[0].name]["corruptions"]["fog"]["severities"]
    assert kept["scores"]["fog 1"] == fog["1"]
    assert (out / f"{name}.fog-5").is_file()
    capsys.readouterr()
    stops = iter((0, 7))  # nothing plain, and what is left: 1 + 3 + 3 frames
    assert run(*where, "-o", out, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == whole
    assert [path.name for path in out.iterdir() if "unfinished" in path.name] == []


def test_spoilt_scores_of_another_evaluation_are_refused(tmp_path):
    path = tmp_path / "x.spoilt.unfinished"
    Spoilt(path, KEY).score("fog", 1, lambda unfinished: 0.5)
    again = Spoilt(path, KEY)
    assert again.score("fog", 1, lambda unfinished: pytest.fail("scored twice")) == 0.5
    assert again.has("fog", 1)
    assert not again.has("fog", 2)
    for changed in KEY:
        with pytest.raises(EvaluationError, match="is left from another evaluation, of model aaaaaaaaaaaa"):
            Spoilt(path, KEY | {changed: "c" * 64})
    for content in (b"", b"[]", b'{"schema": 1}', b'{"schema": 1, "scores": {"fog 1": "x"}}'):
        path.write_bytes(content)
        with pytest.raises(EvaluationError, match="is not of an unfinished evaluation; delete it"):
            Spoilt(path, KEY)


@pytest.mark.slow
def test_a_stop_at_the_second_model_keeps_the_first(models, root, tmp_path, capsys, monkeypatch):
    from segdeploy.assess.evaluate import modes as module

    where = (*models, "--dataset", "cityscapes", "--root", root, "-o", tmp_path / "out", "--worst", "0")
    plain, left = module.whole_image, iter((6, 1))
    monkeypatch.setattr(module, "whole_image", lambda *given: Stops(plain(*given), next(left)))
    assert run(*where) == 130
    left = iter((0, 5))
    assert run(*where) == 0
    assert "Δ mIoU" in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("*.unfinished"))


@pytest.mark.slow
def test_cityscapes_classes_on_camvid(models, tmp_path, capsys):
    for index in range(2):
        scene = scenes.make_scene(index, 64, 128)
        for name, pixels in (("test", scene.image[..., ::-1]), ("testannot", scene.labels % 12)):
            (tmp_path / name).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), pixels)
    assert run(models[0], "--dataset", "camvid", "--root", tmp_path, "--split", "test", "--json", "-") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dataset"]["classes"] == list(read_labels("camvid").names)
    assert report["models"][0]["scores"]["category_iou"] is None


@pytest.mark.slow
def test_two_folders_and_their_mapping(graphs, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.jpg"), scenes.make_scene(0, 64, 128).image)
    cv2.imwrite(str(tmp_path / "labels/a.png"), np.repeat(np.uint8([[0, 9]]), 64, 1).repeat(64, 0))
    (tmp_path / "m.yaml").write_text(
        "{ids: {0: ground, 9: thing}, from: {road: ground, kerb: ground, car: thing}}"
    )
    where = ("--dataset", "folder", "--root", tmp_path, "--mapping", tmp_path / "m.yaml", "--json", "-")
    assert run(graphs("logits"), *where) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dataset"]["classes"] == ["ground", "thing"]
    assert sum(map(sum, report["models"][0]["confusion"])) == 64 * 128


@pytest.fixture
def refused(refused):
    return lambda *arguments: refused("evaluate", *arguments)


@pytest.mark.slow
def test_labels_of_another_size_than_their_image(models, city, refused):
    path = next(city.rglob("madeup_000000*_labelIds.png"))
    cv2.imwrite(str(path), np.zeros((32, 64), np.uint8))
    said = refused(models[0], "--dataset", "cityscapes", "--root", city)
    assert f"{path} is 32x64 (height x width), its image is 64x128: labels are never resized" in said


@pytest.mark.slow
def test_spoilt_data_sets(models, city, refused):
    where = (models[0], "--dataset", "cityscapes", "--root", city)
    path = next(city.rglob("madeup_000000*_labelIds.png"))
    cv2.imwrite(str(path), np.full((64, 128), 200, np.uint8))
    assert f"{path} holds the id 200, which cityscapes does not know" in refused(*where)
    for file in city.rglob("*_labelIds.png"):
        cv2.imwrite(str(file), np.zeros((64, 128), np.uint8))
    dataset = open_dataset("cityscapes", city)
    with pytest.raises(
        EvaluationError, match=r"no pixel of the 4 label files of cityscapes val is of a class that"
    ):
        evaluate(lambda frame: np.zeros((64, 128), np.uint8), dataset, CITYSCAPES)
    path.unlink()
    assert "1 of 4 files have no partner" in refused(*where)
    assert "no label files were found" in refused(*where, "--split", "test")
    assert "there is no folder" in refused(models[0], "--dataset", "cityscapes", "--root", city / "gone")


def test_an_image_that_cannot_be_decoded(city):
    dataset = open_dataset("cityscapes", city)
    predict = answers(dataset)
    dataset.pairs[1].image.write_bytes(b"")
    with pytest.raises(ImageError, match=r"madeup_000001_000019_leftImg8bit\.png is not an image"):
        evaluate(predict, dataset, CITYSCAPES)


@pytest.mark.slow
def test_requests_that_make_no_sense(models, graphs, root, refused, misused, tmp_path):
    where = ("--dataset", "cityscapes", "--root", root)
    assert "do not fit cityscapes: none counts as sidewalk" in refused(models[0], graphs("frames"), *where)
    assert "there is no file" in refused(models[0], tmp_path / "gone.onnx", *where)
    assert "a model is given twice" in refused(models[0], models[0], *where)
    some = "expected some with commas between, as in "
    for flag, value, words in (
        ("--workers", "0", "0 is outside 1 to 256"),
        ("--worst", "-1", "-1 is outside 0 to 1,000"),
        ("--limit", "0", "0 is outside 1 to 10,000,000"),
        ("--limit", "many", "'many' is not a whole number, 1 to 10,000,000"),
        ("--scales", "all", f"'all' is not a number, 0.001 to 16; {some}0.5,1,1.5"),
        ("--severities", "all", f"'all' is not a whole number, 1 to 5; {some}1,3,5"),
        ("--stride", "64", "'64' is not a size; expected HEIGHTxWIDTH, as in 512x1024"),
        ("--json", "x.onnx", "x.onnx is neither a .json file nor -; to print JSON, put --json last"),
    ):
        said = misused("evaluate", models[0], *where, flag, value)
        assert said == f"segdeploy evaluate: error: argument {flag}: {words}"
    for flag, value in (("--dataset", "coco"), ("--fit", "crop"), ("--resize", "area")):
        said = misused("evaluate", models[0], *where, flag, value)
        assert f"argument {flag}: invalid choice: '{value}' (choose from " in said


def test_an_image_that_the_data_set_has_not_is_damage(tmp_path):
    unfinished = Unfinished(tmp_path / "x.unfinished", KEY)
    counts = np.eye(19, 20, dtype=np.int64)
    unfinished.append(3, counts)
    assert np.array_equal(unfinished.read(4, counts.shape)[3], counts)
    with pytest.raises(EvaluationError, match="is damaged; delete it to begin again"):
        unfinished.read(3, counts.shape)


def test_what_was_published_stands_beside_a_score_of_the_same_data_set():
    models = {
        "a.onnx": {"card": "segformer-b0-cityscapes"},
        "b.onnx": {"card": "mine"},
        "c.onnx": {"card": "segformer-b0-demo"},
    }
    (line,) = published_scores(models, "cityscapes")
    assert line.startswith("published for a.onnx: 76.2 mIoU (")
    assert list(published_scores(models, "kitti")) == []
