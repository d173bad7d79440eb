import cv2
import numpy as np
import pytest

from segdeploy.picture.image import read_frame
from segdeploy.prove.probes import (
    PIXELS,
    enlarged,
    probe_frames,
    small_frames,
    small_image,
    small_scene,
    times_smaller,
)
from segdeploy.scenes import make_scene, write_cityscapes
from segdeploy.size import Size


@pytest.mark.slow
def test_made_frames_are_the_same_everywhere_and_end_in_noise():
    frames = probe_frames(3, Size(64, 96))
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 3
    for seed in (0, 1):
        assert np.array_equal(frames[seed], make_scene(seed, 64, 96).image)
    assert 127 < frames[2].mean() < 128 and 70 < frames[2].std() < 77  # of even noise: 127.5 and 73.9
    assert all(np.array_equal(*pair) for pair in zip(frames, probe_frames(3, Size(64, 96)), strict=True))


@pytest.mark.slow
def test_frames_of_the_users_own_are_spread_over_all_of_them(tmp_path):
    images = write_cityscapes(tmp_path, 6, seed=5, height=64, width=96)
    for count, places in ((3, (0, 2, 4)), (9, range(6))):
        frames = probe_frames(count, Size(32, 32), images)
        assert len(frames) == len(places)
        for frame, place in zip(frames, places, strict=True):
            assert np.array_equal(frame, read_frame(images[place]))


def test_small_frames_are_of_images_as_far_as_there_are_any(tmp_path):
    images = write_cityscapes(tmp_path, 2, seed=5, height=200, width=300)
    made = small_frames(4, Size(96, 160), "linear", images)
    assert [name for name, _ in made] == [images[0].name, images[1].name, "a made scene", "a made scene"]
    assert len({frame.tobytes() for _, frame in made}) == 4


@pytest.mark.parametrize(
    "size", [Size(96, 160), Size(512, 1024), Size(97, 131), Size(1024, 1024), Size(720, 1283)]
)
def test_frames_are_whole_numbers_larger(size):
    small, times = small_scene(7, size), times_smaller(size)
    whole = enlarged(small, times, size)
    assert whole.shape == (size.height, size.width, 3)
    rows, columns = np.indices((size.height, size.width)) // times
    assert np.array_equal(whole, small[rows, columns])
    assert small.shape[0] * small.shape[1] <= 1.3 * PIXELS


@pytest.mark.parametrize("size", [Size(96, 160), Size(512, 1024), Size(97, 131)])
def test_an_image_is_made_smaller_by_means_of_squares(size, tmp_path):
    pixels = np.random.default_rng(4).integers(0, 256, (size.height, size.width, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "x.png"), pixels[..., ::-1])
    small, times = small_image(tmp_path / "x.png", size, "linear"), times_smaller(size)
    assert enlarged(small, times, size).shape == pixels.shape
    expected = pixels[:times, :times].reshape(-1, 3).mean(axis=0)
    assert np.abs(small[0, 0] - expected).max() <= 0.5
    rows, columns = (-(-side // times) for side in (size.height, size.width))
    assert small.shape == (rows, columns, 3)


@pytest.mark.parametrize(
    ("height", "width", "times"), [(48, 80, 0), (48, 80, 1), (48, 80, 1 << 40), (97, 160, 1), (96, 161, 1), (47, 81, 2)]
)  # fmt: skip
def test_a_frame_that_does_not_just_cover_the_size_takes_no_memory(height, width, times):
    with pytest.raises(ValueError, match=f"a frame of {height * times}x{width * times} does not fit 96x160"):
        enlarged(np.zeros((height, width, 3), np.uint8), times, Size(96, 160))


def test_a_frame_that_just_covers_the_size_is_cut_to_it():
    assert enlarged(np.ones((33, 54, 3), np.uint8), 3, Size(97, 160)).shape == (97, 160, 3)
