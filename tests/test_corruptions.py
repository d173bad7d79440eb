from itertools import pairwise

import numpy as np
import pytest

from segdeploy.assess.evaluate.corruptions import (
    CATEGORIES,
    CORRUPTIONS,
    SEVERITIES,
    STRENGTHS,
    corrupt,
    robustness_table,
    stretched,
)
from segdeploy.errors import ImageError, RequestError
from segdeploy.scenes import make_scene

SCENES = [make_scene(seed, 192, 384).image for seed in (3, 11)]
ODD = np.ascontiguousarray(SCENES[0][20:117, 40:171])  # 97×131
RANDOM = [*CATEGORIES["noise"], *CATEGORIES["weather"], "glass_blur", "motion_blur"]


def loss(frame, corrupted) -> float:
    """Peak signal to noise, dB."""
    return float(10 * np.log10(255**2 / np.mean((frame.astype(float) - corrupted) ** 2)))


def test_these_are_the_sixteen_of_cityscapes_c() -> None:
    assert CORRUPTIONS == (
        "motion_blur", "defocus_blur", "glass_blur", "gaussian_blur",
        "gaussian_noise", "impulse_noise", "shot_noise", "speckle_noise",
        "brightness", "contrast", "saturate", "jpeg_compression",
        "snow", "spatter", "fog", "frost",
    )  # fmt: skip


# `c` of each function in imagenet_c/corruptions.py (github.com/hendrycks/robustness; Hendrycks and Dietterich, ICLR
# 2019), which Cityscapes-C takes over (Kamann and Rother, CVPR 2020), read off imagecorruptions-imaug 1.1.5.
PUBLISHED = {
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "gaussian_blur": ((1,), (2,), (3,), (4,), (6,)),
    "gaussian_noise": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    "impulse_noise": ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    "shot_noise": ((60,), (25,), (12,), (5,), (3,)),
    "speckle_noise": ((0.15,), (0.2,), (0.35,), (0.45,), (0.6,)),
    "brightness": ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    "contrast": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    "jpeg_compression": ((25,), (18,), (15,), (10,), (7,)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
}

# What imagecorruptions-imaug 1.1.5 makes of `pattern`, dB to the frame: means over 60 draws of weather and motion.
BENCHMARK = {
    "motion_blur": (28.68, 25.49, 22.74, 20.72, 19.83),
    "defocus_blur": (32.13, 30.73, 28.58, 27.10, 25.58),
    "glass_blur": (29.28, 29.94, 24.98, 25.90, 25.04),
    "gaussian_blur": (35.19, 31.42, 29.34, 27.71, 24.93),
    "gaussian_noise": (21.97, 18.51, 15.18, 12.48, 10.24),
    "impulse_noise": (20.80, 17.78, 16.02, 13.29, 11.30),
    "shot_noise": (21.08, 17.42, 14.45, 11.25, 9.56),
    "speckle_noise": (22.63, 20.19, 15.60, 13.71, 11.83),
    "brightness": (22.11, 16.09, 12.79, 10.78, 9.83),
    "contrast": (21.68, 20.34, 19.18, 18.16, 17.69),
    "saturate": (15.60, 13.40, 15.46, 13.91, 13.36),
    "jpeg_compression": (29.04, 28.13, 27.50, 25.83, 23.80),
    "snow": (14.57, 10.32, 10.28, 8.72, 7.27),
    "spatter": (31.76, 23.77, 21.76, 19.46, 17.33),
    "fog": (16.99, 16.11, 15.23, 15.10, 14.70),
    "frost": (12.62, 11.55, 10.98, 11.50, 11.15),
}
# A draw of weather is another sky; the rest differs in rounding, and in what the module's docstring says.
WITHIN_DB = dict.fromkeys(CORRUPTIONS, 0.5) | {"spatter": 1.2, "fog": 1.0, "frost": 2.5}


def pattern() -> np.ndarray:
    rows, columns = np.mgrid[:160, :224]
    hills = 128 + 70 * np.sin(rows / 9) * np.cos(columns / 13)
    board = 45 * ((rows // 20 + columns // 28) % 2)
    channels = hills + board, 0.7 * hills + 40 - board, 210 - 0.8 * hills
    return np.clip(np.stack(channels, 2), 0, 255).astype(np.uint8)


def test_the_strengths_are_the_published_ones() -> None:
    assert STRENGTHS == PUBLISHED


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_frame_is_as_far_from_itself_as_the_benchmark_puts_it(name: str) -> None:
    frame, draws = pattern(), range(12 if name in (*CATEGORIES["weather"], "motion_blur") else 1)
    for severity, expected in zip(SEVERITIES, BENCHMARK[name], strict=True):
        seen = np.mean([loss(frame, corrupt(frame, name, severity, seed)) for seed in draws])
        assert seen == pytest.approx(expected, abs=WITHIN_DB[name]), severity


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_severity_on_an_odd_frame(name: str) -> None:
    before = ODD.copy()
    made = [corrupt(ODD, name, severity, seed=7) for severity in SEVERITIES]
    np.testing.assert_array_equal(ODD, before)
    for frame in made:
        assert frame.shape == (97, 131, 3) and frame.dtype == np.uint8
        assert (frame != ODD).mean() > 0.01
    for mild, severe in pairwise(made):
        assert (mild != severe).any()
    again = [corrupt(ODD, name, severity, seed=7) for severity in SEVERITIES]
    np.testing.assert_array_equal(made, again)


@pytest.mark.parametrize("name", RANDOM)
def test_each_image_has_its_own_noise(name: str) -> None:
    assert (corrupt(ODD, name, 3, seed=0) != corrupt(ODD, name, 3, seed=1)).any()


@pytest.mark.parametrize("name", sorted({*CORRUPTIONS} - {*RANDOM}))
def test_what_holds_no_chance_is_the_same_for_every_image(name: str) -> None:
    np.testing.assert_array_equal(corrupt(ODD, name, 3, seed=0), corrupt(ODD, name, 3, seed=1))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_5_is_further_from_the_frame_than_1(name: str) -> None:
    mild, severe = (
        np.mean([loss(frame, corrupt(frame, name, severity, seed)) for seed in (0, 1, 2) for frame in SCENES])
        for severity in (1, 5)
    )
    assert mild > severe


@pytest.mark.parametrize(
    "name", [*CATEGORIES["noise"], "defocus_blur", "gaussian_blur", "brightness", "contrast"]
)
def test_every_step_of_a_plain_ladder_is_further(name: str) -> None:
    steps = [loss(SCENES[0], corrupt(SCENES[0], name, severity, 0)) for severity in SEVERITIES]
    assert steps == sorted(steps, reverse=True)


def test_noise_has_the_moments_that_the_benchmark_states() -> None:
    grey = np.full((400, 400, 3), 100, np.uint8)
    level = 100 / 255
    for name, deviation in (
        ("gaussian_noise", 0.08),
        ("shot_noise", (level / 60) ** 0.5),
        ("speckle_noise", 0.15 * level),
    ):
        made = corrupt(grey, name, 1, 0) / 255
        assert made.mean() == pytest.approx(level, abs=0.001)
        assert made.std() == pytest.approx(deviation, rel=0.02)
    salted = corrupt(grey, "impulse_noise", 5, 0)
    assert (salted == 255).mean() == pytest.approx(0.135, abs=0.002)
    assert (salted == 0).mean() == pytest.approx(0.135, abs=0.002)


def test_digital_corruptions_are_what_their_definitions_say() -> None:
    frame = SCENES[0]
    middle = frame.mean(axis=(0, 1))
    np.testing.assert_allclose(corrupt(frame, "contrast", 3, 0), (frame - middle) * 0.2 + middle, atol=0.51)
    value = frame.max(axis=2)
    brighter = np.minimum(value + 0.2 * 255, 255)
    np.testing.assert_allclose(corrupt(frame, "brightness", 2, 0).max(axis=2), brighter, atol=1)
    drained = corrupt(frame, "saturate", 2, 0).astype(int)
    spread = np.ptp(frame.astype(int), axis=2)
    np.testing.assert_allclose(np.ptp(drained, axis=2), 0.1 * spread, atol=1)


@pytest.mark.parametrize("name", CATEGORIES["blur"])
def test_blurs_neither_light_nor_darken_a_flat_frame(name: str) -> None:
    flat = np.full((70, 90, 3), (10, 120, 250), np.uint8)
    for severity in SEVERITIES:
        assert np.abs(corrupt(flat, name, severity, 0).astype(int) - flat).max() <= 1


def test_a_motion_blur_spreads_a_dot_along_a_line_no_longer_than_its_path() -> None:
    dot = np.zeros((101, 101, 3), np.uint8)
    dot[50, 50] = 255
    rows, columns = np.nonzero(corrupt(dot, "motion_blur", 1, 0)[..., 0])
    assert 3 < np.hypot(rows - 50, columns - 50).max() <= 21
    assert np.linalg.matrix_rank(np.cov(rows, columns), tol=1) == 1


def test_unknown_names_and_severities_are_refused_with_the_list() -> None:
    with pytest.raises(RequestError, match=r"no corruption is called 'rain'; known: motion_blur, .*, frost"):
        corrupt(ODD, "rain", 1, 0)
    for severity in (0, 6):
        with pytest.raises(RequestError, match=f"{severity} is not a severity; known: 1, 2, 3, 4, 5"):
            corrupt(ODD, "fog", severity, 0)


def test_other_frames_are_refused() -> None:
    with pytest.raises(ImageError, match=r"a frame is uint8 H×W×3 RGB, got float64 \(97, 131, 3\)"):
        corrupt(ODD / 255, "fog", 1, 0)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="a frame of 63x90 is too small; expected 64 pixels a side"):
        corrupt(np.zeros((63, 90, 3), np.uint8), "fog", 1, 0)


def test_the_table_averages_severities_then_corruptions() -> None:
    table = robustness_table(lambda name, severity: 10.0 * severity + (name == "fog"), ("fog", "shot_noise"))
    assert table["corruptions"]["fog"]["severities"] == {1: 11, 2: 21, 3: 31, 4: 41, 5: 51}
    assert table["corruptions"]["fog"]["mean"] == table["corruptions"]["fog"]["mean_as_published"] == 31
    assert table["corruptions"]["shot_noise"]["mean"] == 30
    assert table["corruptions"]["shot_noise"]["mean_as_published"] == 20
    assert (table["mean"], table["mean_as_published"]) == (30.5, 25.5)


def test_the_table_scores_nothing_before_every_name_is_known() -> None:
    asked = []
    with pytest.raises(RequestError, match="no corruption is called 'rain'"):
        robustness_table(lambda name, severity: asked.append(name) or 0.0, ("fog", "rain"))
    assert asked == []


def test_snow_is_stretched_corner_to_corner():
    """As scipy.ndimage.zoom with order 1 does: zoom([[0, 1, 2, 3], …], (5 / 3, 7 / 4), order=1)."""
    small = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = stretched(small, 5, 7)
    np.testing.assert_allclose(found, np.add.outer(np.arange(5) * 2, np.arange(7) / 2), atol=1e-5)
