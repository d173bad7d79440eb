"""A verb that takes a graph takes a checkpoint: its graph is exported once, and kept."""

import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from test_empty_environment import BLOCK

from segdeploy import scenes
from segdeploy.cli import main
from segdeploy.convert import kept as module
from segdeploy.convert.kept import WantedGraph, cache_folder, kept_graph, kept_graphs
from segdeploy.errors import CheckpointError, RequestError
from segdeploy.model.record import read_record
from segdeploy.networks.sources import is_checkpoint
from segdeploy.size import Size

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture
def street(tmp_path):
    cv2.imwrite(str(tmp_path / "street.png"), scenes.make_scene(0, 96, 160).image)
    return tmp_path / "street.png"


def test_the_second_call_answers_the_same_without_pytorch(tiny, street, tmp_path, capsys):
    assert main(["run", str(tiny), str(street), "-o", str(tmp_path / "first")]) == 0
    said = capsys.readouterr().err
    assert f"the graph is kept as {cache_folder()}" in said
    assert f"to have it here: segdeploy export {tiny} -o ." in said
    code = "import sys; from segdeploy.cli import main; sys.exit(main(sys.argv[1:]))"
    blocked = BLOCK.format(blocked={"torch", "transformers", "onnxscript", "huggingface_hub"})
    done = subprocess.run(
        [sys.executable, "-c", blocked + code, "run", tiny, street, "-o", tmp_path / "second"],
        capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.startswith("segdeploy: next: ")
    assert done.stderr.count("\n") == 1
    ids = [
        cv2.imread(str(tmp_path / way / "street.ids.png"), cv2.IMREAD_UNCHANGED)
        for way in ("first", "second")
    ]
    assert np.array_equal(*ids)


def test_what_is_asked_for_makes_another_graph(tiny):
    plain = kept_graph(WantedGraph(str(tiny)))
    small = kept_graph(WantedGraph(str(tiny), size=Size(64, 96), interface="frames"))
    assert not kept_graph(WantedGraph(str(tiny), size=Size(64, 96), interface="frames")).made
    assert small.path.name == "tiny.64x96.frames.onnx"
    assert small.kept.command == f"segdeploy export {tiny} --size 64x96 --interface frames -o ."
    record = read_record(small.path)
    assert (record.size, record.interface, record.command) == ("64x96", "frames", small.kept.command)
    assert {one.path for one in kept_graphs()} >= {plain.path, small.path}


def test_other_weights_under_the_name_make_another_graph(tiny, tmp_path, monkeypatch):
    copy = tmp_path / "tiny"
    shutil.copytree(tiny, copy)
    kept_graph(WantedGraph(str(tiny)))
    assert not kept_graph(WantedGraph(str(copy))).made  # the same files
    config = json.loads((copy / "config.json").read_text())
    config["id2label"]["0"] = "rope"  # as long as the name before: the content counts, not the size
    before = (copy / "config.json").stat().st_size
    (copy / "config.json").write_text(json.dumps(config))
    assert (copy / "config.json").stat().st_size == before
    assert kept_graph(WantedGraph(str(copy))).made


def test_a_graph_that_was_changed_is_made_again(tiny):
    found = kept_graph(WantedGraph(str(tiny)))
    whole = found.path.read_bytes()
    found.path.write_bytes(whole[:-1])
    again = kept_graph(WantedGraph(str(tiny)))
    assert again.made
    assert again.path.read_bytes() == whole


class Hub:
    """The Hub with one model, which answers or does not."""

    def __init__(self, folder):
        self.folder, self.commit, self.answers, self.asked = folder, "a" * 40, True, 0

    def model_info(self, hub_id, revision=None, timeout=None):
        self.asked += 1
        if not self.answers:
            raise ConnectionError("no route")
        return type("Info", (), {"sha": self.commit})

    def download(self, hub_id, revision):
        if not self.answers:
            raise CheckpointError("the Hub cannot be reached")
        return self.folder


@pytest.fixture
def hub(tiny, monkeypatch):
    import huggingface_hub

    from segdeploy.networks import checkpoints

    made = Hub(tiny)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(checkpoints, "_download", made.download)
    return made


def test_the_hub_is_asked_and_may_be_away(hub):
    wanted = WantedGraph("somebody/tiny")
    first = kept_graph(wanted)
    assert (first.made, first.notes) == (True, ())
    assert not kept_graph(wanted).made
    hub.answers = False
    away = kept_graph(wanted)
    assert (away.path, away.made) == (first.path, False)
    assert away.notes == (
        "the Hub does not answer; somebody/tiny is taken as it was, at commit aaaaaaaaaaaa",
    )
    hub.answers, hub.commit = True, "b" * 40  # something new was pushed
    assert kept_graph(wanted).made
    hub.answers = False
    with pytest.raises(CheckpointError, match="the Hub cannot be reached"):
        kept_graph(WantedGraph("somebody/else"))


def test_a_card_of_the_users_own_is_known_by_its_content(tiny, tmp_path, monkeypatch):
    own = tmp_path / "own.yaml"
    own.write_text("one")
    first = module.card_in(WantedGraph(str(tiny), card=str(own)))
    own.write_text("two")
    assert module.card_in(WantedGraph(str(tiny), card=str(own))) != first
    assert module.card_in(WantedGraph(str(tiny), card="segformer-b0-ade")) == "segformer-b0-ade"


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("nvidia/segformer-b0", True),
        ("weights.pth", True),
        ("there/weights.safetensors", True),
        ("out/x.onnx", False),
        ("out/x.engine", False),
        ("models", False),  # a folder that is there, without a config.json
        ("a/b/c", False),
        ("street.jpg", False),
    ],
)
def test_what_may_be_a_checkpoint(name, is_one, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert is_checkpoint(name) == is_one


def test_a_path_that_exists_is_never_a_hub_id(tiny, tmp_path, monkeypatch):
    (tmp_path / "somebody/tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_checkpoint("somebody/tiny")
    shutil.copytree(tiny, "somebody/other")
    assert is_checkpoint("somebody/other")


def test_every_verb_takes_one(tiny, street, tmp_path, capsys):
    root = tmp_path / "city"
    scenes.write_cityscapes(root, 8, seed=700, height=96, width=160)
    for words in (
        ["inspect", str(tiny)],
        ["deepstream", "config", str(tiny), "-o", str(tmp_path / "deepstream")],
        [
            "quantize",
            str(tiny),
            "--images",
            str(root / "leftImg8bit"),
            "--max-drop",
            "90",
            "-o",
            str(tmp_path / "int8"),
        ],
    ):
        assert main(words) == 0, capsys.readouterr().err
    assert (tmp_path / "int8/tiny.96x160.nvinfer.int8.onnx").is_file()
    assert (tmp_path / "deepstream/tiny.96x160.nvinfer.onnx").is_file()


def test_bench_measures_the_kept_graph_where_asked(tiny, graphs, tmp_path, capsys):
    out = tmp_path / "seen.json"
    words = ["--size", "64x96", "--duration", "0.1", "--warmup", "0", "--json", str(out)]
    assert main(["bench", str(tiny), "--network", "graph", *words]) == 0
    (model,) = json.loads(out.read_text())["models"]
    assert (model["name"], model["size"]) == ("tiny.64x96.nvinfer.onnx", "64x96")
    assert model["runtime"].startswith("ONNX Runtime")
    capsys.readouterr()
    assert main(["bench", str(graphs("frames")), "--network", "graph"]) == 1
    said = capsys.readouterr().err
    assert said == (
        f"segdeploy: --network graph is for checkpoints, and {graphs('frames')} is none; leave it out\n"
    )


def test_verify_names_what_a_checkpoint_is(tiny, capsys):
    assert main(["verify", str(tiny)]) == 1
    assert capsys.readouterr().err == (
        f"segdeploy: {tiny} is a checkpoint, and an engine is compared with its graph; build one first: segdeploy"
        f" build-engine {tiny}\n"
    )


def test_a_card_is_for_the_checkpoint_and_for_the_graph_beside_it(tiny, graphs, tmp_path):
    """What the card says of a foreign graph was lost, where the first MODEL was a checkpoint."""
    import onnx

    root, mapping, card = tmp_path / "data", tmp_path / "mapping.yaml", tmp_path / "own.yaml"
    for place in ("images", "labels"):
        (root / place).mkdir(parents=True)
        cv2.imwrite(str(root / place / "a.png"), np.zeros((96, 160, 3 if place == "images" else 1), np.uint8))
    known = kept_graph(WantedGraph(str(tiny), interface="logits"))
    model = onnx.load(known.path)
    said = {one.key: json.loads(one.value) for one in model.metadata_props if one.value[:1] in "[{"}
    names, colours = said["segdeploy.classes"], said["segdeploy.colours"]
    mapping.write_text(f"ids: {{0: {names[0]}}}\n")
    classes = [{"name": name, "colour": colour} for name, colour in zip(names, colours, strict=True)]
    (tmp_path / "five.yaml").write_text(json.dumps({"classes": classes}))
    card.write_text(
        json.dumps(
            {
                "checkpoint": "x", "size": "96x160", "labels": "five.yaml", "mean": said["segdeploy.mean"],
                "std": [58.395, 57.12, 57.375], "resize": "pillow", "licence": "none",
            }
        )
    )  # fmt: skip
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "theirs.onnx")
    out = tmp_path / "seen.json"
    words = ["evaluate", str(tiny), str(tmp_path / "theirs.onnx"), "--card", str(card), "--dataset", "folder"]
    assert main([*words, "--root", str(root), "--mapping", str(mapping), "--json", str(out)]) == 0
    assert [one["card"] for one in json.loads(out.read_text())["models"]] == ["own", "own"]


def test_flags_of_a_checkpoint_are_not_for_a_graph(graphs, street, tmp_path, refused):
    said = refused("run", graphs("frames"), street, "--size", "64x96")
    assert said.startswith(
        "segdeploy: this graph has the one size 96x160, and 64x96 was asked for; choose one that it has, or export it"
    )
    said = refused("run", graphs("frames"), street, "--fp16")
    assert said.startswith(
        "segdeploy: --fp16 is for a checkpoint, and tiny.frames.1.onnx is a graph or an engine"
    )
    with pytest.raises(RequestError, match=r"revision 'x' was given with .*, which is no Hub id"):
        kept_graph(WantedGraph(str(street), revision="x"))


def test_the_cache_is_listed_and_cleared(tiny, capsys):
    made = kept_graph(WantedGraph(str(tiny))).path
    assert main(["cache", "graphs"]) == 0
    assert str(made) in capsys.readouterr().out
    assert main(["cache", "graphs", "--json"]) == 0
    assert str(made) in {one["file"] for one in json.loads(capsys.readouterr().out)}
    assert main(["cache", "graphs", "--clear"]) == 0
    assert capsys.readouterr().out.endswith(f"MB of graphs removed from {cache_folder()}\n")
    assert kept_graphs() == []
    assert not cache_folder().exists()
