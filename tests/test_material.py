"""Which images a calibration gets, and that label files are counted once."""

import os
from functools import partial

import cv2
import numpy as np
import pytest

from segdeploy import scenes
from segdeploy.datasets.layouts import open_dataset
from segdeploy.datasets.reading import read_pair, read_truth
from segdeploy.errors import EvaluationError, RequestError
from segdeploy.picture.image import read_frame
from segdeploy.prove.material import LabelledSource, Wanted, judged_on, labelled, part, seen_in, unlabelled


def source_of(dataset, read=read_truth):
    return LabelledSource(
        str(dataset),
        tuple(pair.image for pair in dataset.pairs),
        tuple(pair.truth for pair in dataset.pairs),
        dataset.digest,
        dataset.labels,
        np.arange(256, dtype=np.uint8),
        partial(read, dataset),
        partial(read_pair, dataset),
    )


@pytest.fixture
def city(tmp_path):
    scenes.write_cityscapes(tmp_path / "city", 9, seed=40, split="train", height=64, width=128)
    return tmp_path / "city"


@pytest.fixture
def dataset(city):
    return open_dataset("cityscapes", city, "train")


def silent(step):
    pass


@pytest.mark.slow
def test_classes_are_counted_in_every_label_file(dataset, tmp_path):
    steps = []
    pixels = seen_in(source_of(dataset), tmp_path / "x.npz", steps.append)
    truths = [dataset.read_truth(pair) for pair in dataset.pairs]
    assert pixels.tolist() == [[int((truth == kind).sum()) for kind in range(19)] for truth in truths]
    assert steps == [f"counting classes in label file {place} of 9" for place in range(1, 10)]


@pytest.mark.slow
def test_a_second_run_counts_nothing(dataset, city, tmp_path):
    path = tmp_path / "x.npz"
    first = seen_in(source_of(dataset), path, silent)
    again = source_of(open_dataset("cityscapes", city, "train"), lambda *given: pytest.fail("read again"))
    assert np.array_equal(seen_in(again, path, silent), first)
    truth = dataset.pairs[3].truth
    cv2.imwrite(str(truth), np.full((64, 128), 7, np.uint8))
    changed = seen_in(source_of(open_dataset("cityscapes", city, "train")), path, silent)
    assert changed[3].tolist() == [64 * 128, *[0] * 18]
    assert np.array_equal(np.delete(changed, 3, 0), np.delete(first, 3, 0))


def test_a_label_file_written_again_with_as_many_bytes_is_counted_again(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"images/{name}.bmp"), np.zeros((64, 64, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"labels/{name}.bmp"), np.zeros((64, 64), np.uint8))
    (tmp_path / "m.yaml").write_text("{ids: {0: ground, 1: thing}, label_ending: .bmp}")
    path, last = tmp_path / "x.npz", tmp_path / "labels/b.bmp"
    before = open_dataset("folder", tmp_path, mapping=tmp_path / "m.yaml")
    assert seen_in(source_of(before), path, silent).tolist() == [[4096, 0], [4096, 0]]
    cv2.imwrite(str(last), np.ones((64, 64), np.uint8))
    os.utime(last, ns=(0, 0))
    after = open_dataset("folder", tmp_path, mapping=tmp_path / "m.yaml")
    assert after.digest == before.digest
    assert seen_in(source_of(after), path, silent).tolist() == [[4096, 0], [0, 4096]]


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"PK nonsense", b"text"])
def test_a_damaged_file_is_counted_again(content, dataset, tmp_path):
    path = tmp_path / "x.npz"
    whole = seen_in(source_of(dataset), path, silent)
    path.write_bytes(content)
    assert np.array_equal(seen_in(source_of(dataset), path, silent), whole)


@pytest.mark.slow
def test_images_with_labels(dataset, tmp_path):
    given = labelled(source_of(dataset), Wanted(6, 3), counts=tmp_path / "x.npz")
    assert len(given.images) == 6
    assert given.images == labelled(source_of(dataset), Wanted(6, 3), counts=tmp_path / "x.npz").images
    chosen = [pair for pair in dataset.pairs if pair.image in given.images]
    truths = np.stack([dataset.read_truth(pair) for pair in chosen])
    assert given.seen == {name: int((truths == kind).sum()) for kind, name in enumerate(dataset.labels.names)}
    others = [pair for pair in dataset.pairs if pair.image not in given.images]
    for probe, pair in zip(given.probes, others, strict=True):
        assert np.array_equal(probe.truth, dataset.read_truth(pair))


@pytest.mark.slow
def test_a_label_of_another_size_than_its_image_is_found_though_it_is_not_drawn(dataset, tmp_path):
    cv2.imwrite(str(dataset.pairs[0].truth), np.zeros((32, 64), np.uint8))
    with pytest.raises(
        EvaluationError, match=r"is 32x64 \(height x width\), its image is 64x128: labels are"
    ):
        labelled(source_of(dataset), Wanted(2, 1), counts=tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.slow
def test_more_than_there_are(dataset, city, tmp_path):
    with pytest.raises(
        RequestError, match="10 images were asked for, cityscapes train has 9; give --count 9"
    ):
        labelled(source_of(dataset), Wanted(10, 1), counts=tmp_path / "x.npz")
    with pytest.raises(RequestError, match=r"10 images were asked for, .*city has 9; give --count 9 or less"):
        unlabelled(city, Wanted(10, 1))


@pytest.mark.parametrize(
    ("total", "probes", "kept"),
    [(41, 48, 10), (500, 48, 48), (16, 48, 4), (15, 48, 0), (12, 2, 2), (9, 1, 1), (8, 1, 0), (3, 48, 0)],
)
def test_without_a_count_a_quarter_at_most_is_kept_to_judge_on(total, probes, kept):
    parted = part(total, Wanted(None, probes), "x")
    assert len(parted.aside) == kept
    assert parted.count == len(parted.others) == total - kept
    assert sorted(parted.aside + parted.others) == list(range(total))


def test_of_many_images_no_more_than_enough_are_drawn():
    assert part(2975, Wanted(None, 48), "x").count == 500


def test_with_a_count_all_are_drawn_from_but_those_that_a_recipe_keeps():
    assert part(41, Wanted(40, 48), "x").aside == []
    assert part(41, Wanted(31, 48, aside=10), "x") == part(41, Wanted(None, 48), "x")
    with pytest.raises(RequestError, match="32 images and 10 others to judge on were asked for, x has 41"):
        part(41, Wanted(32, 48, aside=10), "x")


def test_what_is_judged_on_was_not_calibrated_on_if_there_is_enough():
    assert judged_on(10, [0, 1, 2, 3], [], 3) == ([4, 6, 8], True)
    assert judged_on(10, [0, 1, 2, 3], [], 6) == ([4, 5, 6, 7, 8, 9], True)
    assert judged_on(12, list(range(8)), [], 48) == ([8, 9, 10, 11], True)
    assert judged_on(11, list(range(8)), [], 48) == (list(range(8)), False)
    assert judged_on(9, list(range(8)), [], 1) == ([8], True)
    assert judged_on(20, [0, 1], [4, 9, 14, 19], 2) == ([4, 14], True)


@pytest.mark.slow
def test_by_default_no_image_is_both_calibrated_and_judged_on(tmp_path):
    scenes.write_cityscapes(tmp_path / "city", 16, seed=40, split="train", height=64, width=128)
    dataset = open_dataset("cityscapes", tmp_path / "city", "train")
    for given in (
        labelled(source_of(dataset), Wanted(None, 48), counts=tmp_path / "x.npz"),
        unlabelled(tmp_path / "city", Wanted(None, 48)),
    ):
        assert (len(given.images), len(given.probes), given.aside, given.held_out) == (12, 4, 4, True)
        frames = [read_frame(path) for path in given.images]
        assert not any(np.array_equal(probe.frame, frame) for probe in given.probes for frame in frames)


@pytest.mark.slow
def test_labels_that_are_blank_where_it_is_judged(dataset, tmp_path):
    for pair in dataset.pairs:
        cv2.imwrite(str(pair.truth), np.zeros((64, 128), np.uint8))
    with pytest.raises(EvaluationError, match="no pixel of the 9 label files of cityscapes train that INT8"):
        labelled(source_of(dataset), Wanted(None, 48), counts=tmp_path / "x.npz")
