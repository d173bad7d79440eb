from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from segdeploy import scenes
from segdeploy.errors import OutputError
from segdeploy.scenes import make_clip, make_scene, write_cityscapes


def test_a_seed_is_a_scene() -> None:
    first, again, other = make_scene(5), make_scene(5), make_scene(6)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.labels, other.labels)


@pytest.mark.parametrize(("height", "width"), [(256, 512), (200, 333), (512, 512)])
def test_shapes_and_types_at_any_size(height: int, width: int) -> None:
    scene = make_scene(1, height, width)
    assert scene.image.shape == (height, width, 3)
    assert scene.labels.shape == (height, width)
    assert scene.image.dtype == scene.labels.dtype == np.uint8


def test_the_layout_does_not_depend_on_the_size() -> None:
    small, large = make_scene(3, 256, 512), make_scene(3, 512, 1024)
    shrunk = large.labels[1::2, 1::2]
    assert np.mean(shrunk == small.labels) > 0.97


@pytest.mark.slow
def test_every_class_is_in_most_scenes_with_enough_pixels() -> None:
    counts = np.stack([np.bincount(make_scene(seed).labels.ravel(), minlength=256) for seed in range(20)])
    assert set(np.flatnonzero(counts.sum(0))) == {*range(19), scenes.VOID}
    seen = (counts[:, :19] >= 60).mean(0)
    assert seen.min() >= 0.5, f"class {seen.argmin()} is in {seen.min():.0%} of the scenes"


@pytest.mark.slow
def test_classes_stand_where_they_belong() -> None:
    rows = np.arange(256)[:, None].repeat(512, 1)
    labels = np.stack([make_scene(seed).labels for seed in range(20)])
    heights = [np.stack([rows] * 20)[labels == k].mean() for k in (scenes.SKY, scenes.BUILDING, scenes.ROAD)]
    assert heights == sorted(heights)


@pytest.mark.slow
def test_a_clip_starts_with_the_scene_and_moves_smoothly() -> None:
    frames = list(make_clip(4, 12, 128, 256))
    still = make_scene(4, 128, 256)
    assert len(frames) == 12
    assert np.array_equal(frames[0].image, still.image)
    assert np.array_equal(frames[0].labels, still.labels)
    assert {frame.labels.shape for frame in frames} == {(128, 256)}
    kept = [np.mean(a.labels == b.labels) for a, b in pairwise(frames)]
    assert 0.85 < min(kept) <= max(kept) < 1
    assert np.mean(frames[0].labels == frames[-1].labels) < min(kept)


@pytest.mark.slow
@pytest.mark.thorough
def test_a_clip_goes_on_past_its_first_chunks() -> None:
    *_, late = make_clip(2, 200, 64, 128)
    assert len(np.unique(late.labels)) >= 10


def test_cityscapes_files_read_back(tmp_path: Path) -> None:
    paths = write_cityscapes(tmp_path, 2, seed=30, split="train", height=128, width=256)
    truths = tmp_path / "gtFine/train/madeup"
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "leftImg8bit/train/madeup/madeup_000000_000019_leftImg8bit.png",
        "leftImg8bit/train/madeup/madeup_000001_000019_leftImg8bit.png",
    ]
    assert len(list(truths.iterdir())) == 4
    scene = make_scene(31, 128, 256)
    stem = "madeup_000001_000019_gtFine"
    train_ids = cv2.imread(str(truths / f"{stem}_labelTrainIds.png"), cv2.IMREAD_UNCHANGED)
    ids = cv2.imread(str(truths / f"{stem}_labelIds.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(cv2.imread(str(paths[1]))[..., ::-1], scene.image)
    assert np.array_equal(train_ids, scene.labels)
    pairs = {(int(a), int(b)) for a, b in zip(train_ids.ravel(), ids.ravel(), strict=True)}
    assert pairs <= {*enumerate(scenes.LABEL_IDS), (scenes.VOID, 0)}
    assert (scenes.ROAD, 7) in pairs
    assert (scenes.SKY, 23) in pairs


def test_an_unwritable_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "gtFine").write_text("in the way")
    with pytest.raises(OutputError, match="gtFine"):
        write_cityscapes(tmp_path, 1, seed=30, height=64, width=128)
