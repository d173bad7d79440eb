"""The programs that a person in a notebook writes, as `mypy --strict` and Python see them."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import segdeploy
from segdeploy import scenes
from segdeploy.errors import RequestError, SegdeployError

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "models" / "demo-b0"
PROGRAMS = {
    "export": """
        made = segdeploy.export("demo", size="64x128", interface="frames", output="out")
        print(made, made.record.classes[0])
    """,
    "a picture": """
        with segdeploy.open_session("frames.onnx") as session:
            segmented = segdeploy.segment(session, "street.png")
        print(segmented, segmented.labels.shape)
        segmented.write_overlay("overlay.png", segdeploy.read_frame("street.png"))
    """,
    "many frames": """
        with segdeploy.open_session("frames.onnx") as session:
            frames = (segdeploy.read_frame(name) for name in ["street.png", "street.png"])
            print(sum(one.labels.size for one in segdeploy.segment_many(session, frames)))
    """,
    "probabilities": """
        with segdeploy.open_session("logits.onnx") as session:
            chances = segdeploy.probabilities(session, "street.png")
        print(chances.shape, float(chances.sum(axis=0).max()))
    """,
    "quantize": """
        made = segdeploy.quantize("frames.onnx", images="images", count=8, probes=4, max_drop=50.0, output="int8")
        print(made, made.calibration.images)
    """,
    "evaluate": """
        scored = segdeploy.evaluate("demo.onnx", dataset="cityscapes", root="city", split="val")
        print(scored, scored.scores.miou)
    """,
    "build an engine": """
        try:
            built = segdeploy.build_engine("frames.onnx", runtime="tensorrt-rtx", output="engines")
            print(built, built.path, built.record.precision)
        except segdeploy.SegdeployError as refused:
            print(refused)
    """,
    "measure": """
        seen = segdeploy.measure("frames.onnx", duration_s=0.2, warm_up_ms=10)
        print(seen, seen.images_per_s)
    """,
    "deepstream": """
        folder = segdeploy.render_deepstream("nvinfer.onnx", output="box")
        print(folder, folder.paths[0])
    """,
    "a card": """
        card = segdeploy.read_card("segformer-b0-cityscapes")
        print(card.name, card.size, segdeploy.Size(512, 1024))
    """,
}


def written(name: str) -> str:
    lines = PROGRAMS[name].strip("\n").splitlines()
    return "\n".join(["import segdeploy", "", *(line.removeprefix("        ") for line in lines)]) + "\n"


@pytest.fixture(scope="module")
def desk(graphs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "demo").symlink_to(DEMO)
    for interface in ("frames", "logits", "nvinfer"):
        (folder / f"{interface}.onnx").write_bytes(graphs(interface).read_bytes())
    (folder / "images").mkdir()
    for seed in range(13):
        cv2.imwrite(str(folder / f"images/{seed:02}.png"), scenes.make_scene(seed, 96, 160).image)
    cv2.imwrite(str(folder / "street.png"), scenes.make_scene(99, 96, 160).image)
    scenes.write_cityscapes(folder / "city", 3, seed=4, height=64, width=128)
    made = segdeploy.export(str(DEMO), size="64x128", interface="frames", output=folder)
    made.path.rename(folder / "demo.onnx")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_and_its_results_print_well(name, desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    exec(compile(written(name), name, "exec"), {})
    printed = capsys.readouterr().out
    assert printed.strip()
    assert "object at 0x" not in printed
    assert "(path=" not in printed


@pytest.mark.slow
def test_the_programs_pass_mypy_strict(tmp_path):
    for place, name in enumerate(PROGRAMS):
        (tmp_path / f"program_{place}.py").write_text(written(name))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *map(str, sorted(tmp_path.glob("*.py")))],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip # with the settings and the cache of `make lint`, which has read the package
    wrong = [line for line in done.stdout.splitlines() if line.startswith((str(tmp_path), "program_"))]
    assert wrong == []
    assert "no issues found" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: segdeploy.export(DEMO, size=512), r'size is 512, a int; expected "HEIGHTxWIDTH"'),
        (lambda: segdeploy.export(DEMO, size="512"), "'512' is not a size"),
        (lambda: segdeploy.export(DEMO, output=3), "output is 3, a int; expected a path"),
        (lambda: segdeploy.read_frame(None), "path is None, a NoneType; expected a path"),
        (lambda: segdeploy.measure(7), "model is 7, a int; expected a path"),
        (lambda: segdeploy.quantize(["x.onnx"]), "a list; expected a path"),
        (lambda: segdeploy.quantize("x.onnx", image="y"), "image is not an argument here; known: images, "),
        (lambda: segdeploy.evaluate("x.onnx", dataset="city", root="."), "city"),
        (lambda: segdeploy.render_deepstream("x.onnx", output=None), "output is None"),
        (lambda: segdeploy.render_deepstream_app("x.onnx", source=(), output="box"), "source"),
        (
            lambda: segdeploy.render_deepstream_app("x.onnx", source="file:///a", muxer=7, output="box"),
            "muxer is 7",
        ),
        (lambda: segdeploy.read_frame(""), "path is ''"),
    ],
)
def test_wrong_types_are_refused_in_words(call, words):
    with pytest.raises(SegdeployError, match=words):
        call()


@pytest.mark.slow
def test_what_is_no_frame_is_refused_in_words(graphs):
    with segdeploy.open_session(graphs("frames")) as session:
        for frame, words in (
            ([[1, 2, 3]], "got a list"),
            (np.zeros((4, 4), np.uint8), "got uint8"),
            ("/nowhere.png", "cannot be read"),
        ):
            with pytest.raises(SegdeployError, match=words):
                segdeploy.segment(session, frame)
        with pytest.raises(RequestError, match="export it with --interface logits"):
            segdeploy.probabilities(session, np.zeros((64, 64, 3), np.uint8))


@pytest.mark.slow
def test_probabilities_are_of_the_labels(graphs):
    frame = scenes.make_scene(5, 130, 170).image
    with segdeploy.open_session(graphs("logits")) as session:
        for how in ("stretch", "letterbox"):
            chances = segdeploy.probabilities(session, frame, how)
            labels = segdeploy.segment(session, frame, how).labels
            assert chances.shape == (session.signature.classes, 130, 170)
            np.testing.assert_allclose(chances.sum(axis=0), 1, atol=1e-5)
            assert np.mean(chances.argmax(axis=0) == labels) > 0.9999
