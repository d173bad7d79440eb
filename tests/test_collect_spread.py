"""Calibration by several processes: the very histograms of one, whoever counts what first, and nothing left behind."""

from dataclasses import asdict, replace

import onnx
import pytest
from test_collect import KEY, same

from segdeploy import scenes
from segdeploy.cli import main
from segdeploy.convert.int8 import spread
from segdeploy.convert.int8.collect import Tally, collect, restore
from segdeploy.convert.int8.spread import (
    ImageCounterSetup,
    added_by_crew,
    added_in_order,
    carrying,
    open_image_counter,
)
from segdeploy.errors import CalibrationError, ImageError
from segdeploy.files import digest_of
from segdeploy.graph.layers import layers_of
from segdeploy.run.session import open_session


@pytest.fixture(scope="module")
def network(graphs):
    path = graphs("frames")
    model = onnx.load(path)
    with open_session(path) as session:
        return model, session.signature, sorted({layer.root for layer in layers_of(model)})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return scenes.write_cityscapes(tmp_path_factory.mktemp("city"), 10, seed=3, height=96, width=160)


@pytest.fixture
def setup(network, tmp_path):
    """What a worker is told, whose graph is there."""
    model, signature, tensors = network
    path = tmp_path / "graph.onnx"
    path.write_bytes(carrying(model, signature))
    return ImageCounterSetup(str(path), digest_of(path), tuple(tensors), KEY, 1)


@pytest.mark.slow
def test_a_stopped_collection_goes_on_with_processes_and_is_that_of_one(
    network, images, tmp_path, monkeypatch
):
    monkeypatch.setattr(spread, "PART", 2)
    state, folder, steps = tmp_path / "x.npz", tmp_path / "x.parts", []
    add = added_by_crew(*network, KEY, folder, processes=2, ray=None)
    whole = collect(*network, images, key=KEY)
    broken = tmp_path / images[7].name
    broken.write_bytes(images[7].read_bytes()[:100])
    with pytest.raises(ImageError, match=rf"{broken.name} is a damaged PNG"):
        collect(*network, [*images[:7], broken, *images[8:]], key=KEY, state=state, add=add)
    kept = restore(state, KEY, network[2])
    done = kept.done if kept else 0
    assert done in (0, 2, 4, 6)
    assert not folder.exists()
    found = collect(*network, images, key=KEY, state=state, progress=lambda: steps.append(1), add=add)
    same(found, whole)
    same(restore(state, KEY, network[2]).histograms, whole)
    assert len(steps) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == [broken.name, "x.npz"]


class Reversed:
    """Stands in for hands whose workers end in the reverse order; `does` writes a part, or not."""

    def __init__(self, does):
        self._does = does

    def work(self, todo):
        for task in reversed(list(todo)):
            yield task, next(iter(self._does([task])))


@pytest.mark.slow
def test_parts_that_come_early_wait_for_those_before(network, images, setup, tmp_path, monkeypatch):
    monkeypatch.setattr(spread, "PART", 4)
    tally, worker = Tally.of(network[2]), open_image_counter(asdict(setup), "a")
    assert list(added_in_order(Reversed(worker.work), tally, images, KEY, tmp_path)) == [4, 4, 2]
    same(tally.histograms, collect(*network, images, key=KEY))
    assert not list(tmp_path.glob("*.npz"))


def test_a_part_that_is_given_up_or_lost_is_named(network, images, tmp_path, monkeypatch):
    monkeypatch.setattr(spread, "PART", 4)
    given_up = Reversed(lambda tasks: [{"key": tasks[0][0], "reason": "it ended the process, twice"}])
    words = r"madeup_000008_\S+ and the 1 images after it cannot be counted: it ended the process, twice"
    with pytest.raises(CalibrationError, match=words):
        list(added_in_order(given_up, Tally.of(network[2]), images, KEY, tmp_path))
    lost = Reversed(lambda tasks: [{"key": tasks[0][0]}])
    with pytest.raises(CalibrationError, match=r"lost 0\.npz, which a worker wrote there; start again"):
        list(added_in_order(lost, Tally.of(network[2]), images, KEY, tmp_path))


def test_a_machine_that_does_not_share_the_folder_is_refused(setup):
    for changed in ({"graph": "/elsewhere/graph.onnx"}, {"digest": "f" * 64}):
        with pytest.raises(
            CalibrationError, match=r"is not the folder of this calibration; name one with -o that"
        ):
            open_image_counter(asdict(replace(setup, **changed)), "a")


@pytest.mark.slow
def test_quantize_writes_the_same_graph_to_the_byte(graphs, images, tmp_path):
    words = ["quantize", graphs("frames"), "--images", images[0].parent, "--probes", "2", "--max-drop", "100"]
    words += ["--method", "minmax", "--equalise", "on"]
    written = []
    for more in ((), ("--processes", "2")):
        out = tmp_path / f"out{len(more)}"
        assert main([*map(str, words), "-o", str(out), *more]) == 0
        written.append([path.read_bytes() for path in sorted(out.glob("*.int8.onnx"))])
        assert not list(out.glob("*.parts"))
    assert written[0]
    assert written[0] == written[1]


def test_scales_of_a_file_count_nothing(graphs, images, tmp_path, refused):
    words = (
        "quantize",
        graphs("frames"),
        "--images",
        images[0].parent,
        "--scales",
        tmp_path / "x.json",
    )
    for more in (("--processes", "2"), ("--ray", "local")):
        assert "with --scales nothing is counted: leave one out" in refused(*words, *more)
