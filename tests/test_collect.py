"""A collection that is stopped, however it is stopped, ends in the very histograms of one that was not."""

import json
import os
import random
import signal

import numpy as np
import onnx
import pytest

from segdeploy import scenes
from segdeploy.convert.int8 import collect as module
from segdeploy.convert.int8.collect import CalibrationKey, collect, key_of, restore
from segdeploy.errors import CalibrationError, ImageError
from segdeploy.graph.layers import layers_of
from segdeploy.graph.load import read_graph
from segdeploy.run.session import open_session

KEY = CalibrationKey("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture(scope="module")
def network(graphs):
    path = graphs("frames")
    model = onnx.load(path)
    with open_session(path) as session:
        return model, session.signature, sorted({layer.root for layer in layers_of(model)})


@pytest.fixture
def images(tmp_path):
    return scenes.write_cityscapes(tmp_path / "city", 10, seed=3, height=96, width=160)


def same(first, second):
    assert list(first) == list(second)
    for name, one in first.items():
        other = second[name]
        assert (one.exponent, one.largest, one.seen) == (other.exponent, other.largest, other.seen)
        assert np.array_equal(one.counts, other.counts)


@pytest.mark.slow
def test_each_value_of_each_image_is_counted(network, images):
    steps = []
    found = collect(*network, images, key=KEY, progress=lambda: steps.append(1))
    assert len(steps) == 10
    for one in found.values():
        assert one.counts.sum() == one.seen
        assert one.seen % 10 == 0


@pytest.mark.slow
def test_it_goes_on_after_an_image_that_could_not_be_read(network, images, tmp_path):
    state = tmp_path / "x.npz"
    whole = collect(*network, images, key=KEY)
    content = images[5].read_bytes()
    images[5].write_bytes(content[:100])
    with pytest.raises(
        ImageError, match=r"madeup_000005_000019_leftImg8bit\.png is a damaged PNG, from byte 33"
    ):
        collect(*network, images, key=KEY, state=state)
    assert restore(state, KEY, network[2]).done == 5
    images[5].write_bytes(content)
    steps = []
    same(collect(*network, images, key=KEY, state=state, progress=lambda: steps.append(1)), whole)
    assert len(steps) == 10
    assert restore(state, KEY, network[2]).done == 10


@pytest.mark.slow
def test_ctrl_c_lets_the_image_under_way_be_counted_wholly(network, images, tmp_path, monkeypatch):
    state, count, calls = tmp_path / "x.npz", module.count, []
    whole = collect(*network, images, key=KEY)

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 3 * len(network[2]) + 2:  # early in the fourth image
            os.kill(os.getpid(), signal.SIGINT)
        count(*given)

    monkeypatch.setattr(module, "count", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(*network, images, key=KEY, state=state)
    assert restore(state, KEY, network[2]).done == 4
    monkeypatch.setattr(module, "count", count)
    same(collect(*network, images, key=KEY, state=state), whole)


@pytest.mark.slow
def test_an_image_that_was_counted_in_part_is_not_kept(network, images, tmp_path, monkeypatch):
    state, count, calls = tmp_path / "x.npz", module.count, []
    monkeypatch.setattr(module, "KEPT_EVERY", 2)

    def failing(*given):
        calls.append(1)
        if len(calls) == 3 * len(network[2]) + 2:
            raise CalibrationError("the tensor x holds NaN or infinity on a calibration image")
        count(*given)

    monkeypatch.setattr(module, "count", failing)
    with pytest.raises(CalibrationError, match="holds NaN"):
        collect(*network, images, key=KEY, state=state)
    assert restore(state, KEY, network[2]).done == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 0}, "has schema 0 and 16384 bins, this version of segdeploy reads schema 1 with 16384; delete"),
        ({"bins": 2048}, "has schema 1 and 2048 bins, this version of segdeploy reads schema 1 with 16384"),
        ({"schema": None}, "has schema None and"),
        ({"done": None}, "is not a calibration that can be read .* delete it"),
        ({"tensors": {}}, "is not a calibration that can be read .* delete it"),
        ({"done": 10**12}, r"\(done is 1000000000000; expected 1 to 4294967295\); delete it"),
        ({"done": 9999}, "says that 9,999 images were counted, and there are 10; delete it"),
        ({"done": True}, r"\(done is true; expected a whole number\)"),
        ({"tensors": {"x": [10**15, 1.0, 1]}}, "its counts are "),
        ({"key": {}}, "is not a calibration that can be read .* delete it"),
        ({"key": {"graph": "d" * 64, "preprocessing": "b", "images": "c"}}, "was collected for graph dddddddddddd"),
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_taken_up(change, words, network, images, tmp_path):
    state = tmp_path / "x.npz"
    collect(*network, images, key=KEY, state=state)
    with np.load(state) as kept:
        facts, counts = json.loads(str(kept["facts"])), kept["counts"]
    np.savez_compressed(state, facts=json.dumps(facts | change), counts=counts)
    before = state.read_bytes()
    with pytest.raises(CalibrationError, match=words):
        collect(*network, images, key=KEY, state=state)
    assert state.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "odd",
    [
        (10**15, 1.0, None),
        (-(10**9), 0.0, None),
        (5, 1e300, None),
        (5, float("nan"), None),
        (5, -1.0, None),
        (5, 1.0, 7),
    ],
)
def test_a_state_with_absurd_numbers_is_refused(odd, network, images, tmp_path):
    state = tmp_path / "x.npz"
    collect(*network, images, key=KEY, state=state)
    with np.load(state) as kept:
        facts, counts = json.loads(str(kept["facts"])), kept["counts"]
    name, (_, _, seen) = next(iter(facts["tensors"].items()))
    facts["tensors"][name] = [*odd[:2], odd[2] or seen]
    np.savez_compressed(state, facts=json.dumps(facts), counts=counts)
    with pytest.raises(CalibrationError, match=r"is not a calibration that can be read \(.*\); delete it"):
        collect(*network, images, key=KEY, state=state)


@pytest.mark.slow
def test_a_damaged_state_is_refused(network, images, tmp_path):
    state = tmp_path / "x.npz"
    collect(*network, images, key=KEY, state=state)
    whole, chance = state.read_bytes(), random.Random(5)
    for turn in range(120):
        data = bytearray(whole[: chance.randrange(len(whole))] if turn % 4 == 0 else whole)
        for _ in range(chance.choice((1, 3, 30))):
            if data:
                data[
                    chance.randrange(len(data)) if turn % 2 else -1 - chance.randrange(min(len(data), 400))
                ] ^= 1 << (turn % 8)
        state.write_bytes(data)
        try:
            restore(state, KEY, network[2])
        except CalibrationError as error:
            assert "allow_pickle" not in str(error)


@pytest.mark.slow
def test_an_image_that_has_gone_is_named(graphs, network, images):
    images[2].unlink()
    with pytest.raises(ImageError, match=r"madeup_000002_\S+ cannot be read: No such file"):
        key_of(read_graph(graphs("frames")), images)


@pytest.mark.slow
def test_copies_are_one_image(network, images):
    for path in images[7:]:
        path.write_bytes(images[0].read_bytes())
    with pytest.raises(CalibrationError, match=r"7 images \(10 files, some of them copies\) are too few"):
        collect(*network, images, key=KEY)


@pytest.mark.slow
def test_too_few(network, images):
    with pytest.raises(CalibrationError, match="7 images are too few to calibrate on; give 8 or more"):
        collect(*network, images[:7], key=KEY)


@pytest.mark.slow
def test_a_collection_that_was_finished_is_taken_as_it_is(network, images, tmp_path):
    state = tmp_path / "x.npz"
    whole = collect(*network, images, key=KEY, state=state)
    same(collect(*network, images, key=KEY, state=state), whole)
    with pytest.raises(CalibrationError, match="10 images were counted, and there are 9"):
        collect(*network, images[:9], key=KEY, state=state)
