from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segdeploy.errors import ImageError, RequestError
from segdeploy.picture import image
from segdeploy.picture.image import fit, normalise, read_frame, resize, unfit, unfit_logits
from segdeploy.picture.raising import raised
from segdeploy.size import Size

RNG = np.random.default_rng(0)
PHOTO = cv2.GaussianBlur(RNG.integers(0, 256, (90, 140, 3), np.uint8), (5, 5), 0)


@pytest.mark.parametrize("size", [(64, 96), (45, 70), (180, 280), (200, 100), (90, 140)])
def test_pillow_kernel_equals_pillow_to_the_bit(size: tuple[int, int]) -> None:
    expected = np.asarray(Image.fromarray(PHOTO).resize(size[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize(PHOTO, Size(*size), "pillow"), expected)


def test_linear_kernel_is_opencvs() -> None:
    np.testing.assert_array_equal(resize(PHOTO, Size(64, 96)), cv2.resize(PHOTO, (96, 64)))


def test_unknown_kernel_and_fit_name_the_known_ones() -> None:
    with pytest.raises(RequestError, match="'cubic' is not a resize kernel; known: linear, pillow"):
        resize(PHOTO, Size(64, 96), "cubic")
    with pytest.raises(RequestError, match="'crop' is not a way to fit a frame; known: stretch, letterbox"):
        fit(PHOTO, Size(64, 96), "crop")


@pytest.mark.parametrize("how", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(64, 64), (256, 512), (512, 128)])
def test_unfit_gives_back_the_place_of_every_region(how: str, size: tuple[int, int]) -> None:
    """Four flat quarters come back as four quarters, to within the pixels that the smaller grid cannot hold."""
    quarters = np.zeros((90, 140, 3), np.uint8)
    quarters[:45, 70:], quarters[45:, :70], quarters[45:, 70:] = 60, 120, 180
    fitted, geometry = fit(quarters, Size(*size), how)
    assert fitted.shape == (*size, 3)
    labels = unfit(np.rint(fitted[..., 0] / 60).astype(np.uint8), geometry)
    assert labels.shape == (90, 140)
    assert (labels == quarters[..., 0] // 60).mean() > 0.96


def test_letterbox_keeps_the_aspect_and_centres() -> None:
    fitted, geometry = fit(np.full((90, 140, 3), 255, np.uint8), Size(128, 140), "letterbox")
    assert (geometry.top, geometry.left, geometry.content) == (19, 0, Size(90, 140))
    assert fitted[:19].max() == 0 and fitted[19:109].min() == 255 and fitted[109:].max() == 0


def test_unfit_samples_at_pixel_centres() -> None:
    geometry = image.Geometry(Size(1, 2), Size(1, 6), 0, 0)
    assert unfit(np.array([[0, 1, 2, 3, 4, 5]], np.uint8), geometry).tolist() == [[1, 4]]


@pytest.mark.parametrize("aligned", [False, True])
def test_unfit_logits_is_bilinear_then_argmax(aligned: bool) -> None:
    torch = pytest.importorskip("torch")
    logits = RNG.normal(size=(7, 16, 24)).astype(np.float32)
    geometry = image.Geometry(Size(90, 140), Size(64, 96), 0, 0)
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], (90, 140), mode="bilinear", align_corners=aligned
    )
    before = logits.copy()
    labels = unfit_logits(logits, Size(64, 96), geometry, aligned)
    assert (labels == whole.argmax(1)[0].numpy()).mean() > 0.9995  # ties within float rounding
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (16, 24), (90, 140), (91, 3)])
@pytest.mark.parametrize("aligned", [False, True])
def test_raised_is_pytorchs_bilinear(shape: tuple[int, int], aligned: bool) -> None:
    torch = pytest.importorskip("torch")
    plane = RNG.normal(size=shape).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(plane)[None, None], (90, 140), mode="bilinear", align_corners=aligned
    )
    np.testing.assert_allclose(raised(plane, Size(90, 140), aligned), expected[0, 0].numpy(), atol=2e-5)


def test_logits_of_the_frames_own_size_stay_as_they_are() -> None:
    logits = RNG.normal(size=(3, 90, 140)).astype(np.float32)
    before, size = logits.copy(), Size(90, 140)
    labels = unfit_logits(logits, size, image.Geometry(size, size, 0, 0), True)
    assert np.array_equal(labels, before.argmax(0))
    assert np.array_equal(logits, before)


def test_unfit_logits_takes_the_padding_away() -> None:
    logits = np.zeros((2, 16, 16), np.float32)
    logits[1, 4:12] = 1  # the content of a 32×64 frame letterboxed into 64×64 is the middle half
    geometry = image.Geometry(Size(32, 64), Size(32, 64), 16, 0)
    assert unfit_logits(logits, Size(64, 64), geometry, False).mean() > 0.9


def test_normalise_is_scale_times_rgb_minus_mean() -> None:
    frames = RNG.integers(0, 256, (2, 5, 6, 3), np.uint8)
    mean, scale = (123.675, 116.28, 103.53), (0.1, 0.2, 0.3)
    expected = ((frames - np.array(mean)) * np.array(scale)).transpose(0, 3, 1, 2)
    made = normalise(frames, mean, scale)
    assert made.dtype == np.float32 and made.flags.c_contiguous
    np.testing.assert_allclose(made, expected, atol=1e-5)


def save(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def test_every_kind_of_image_becomes_upright_8_bit_rgb(tmp_path: Path) -> None:
    rgb = Image.fromarray(PHOTO)
    grey = np.asarray(rgb.convert("L"))
    np.testing.assert_array_equal(read_frame(save(tmp_path / "rgb.png", rgb)), PHOTO)
    np.testing.assert_array_equal(read_frame(save(tmp_path / "grey.png", rgb.convert("L")))[..., 1], grey)
    with_alpha = rgb.copy()
    with_alpha.putalpha(Image.fromarray(grey))
    np.testing.assert_array_equal(read_frame(save(tmp_path / "alpha.png", with_alpha)), PHOTO)
    cmyk = read_frame(save(tmp_path / "cmyk.jpg", rgb.convert("CMYK"), quality=100))
    assert np.abs(cmyk.astype(int) - PHOTO).mean() < 3
    deep = tmp_path / "deep.png"
    cv2.imwrite(str(deep), cv2.cvtColor(PHOTO, cv2.COLOR_RGB2BGR).astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_frame(deep), PHOTO)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise
    path = save(tmp_path / "turned.jpg", Image.fromarray(PHOTO), exif=exif, quality=100)
    turned = read_frame(path)
    assert turned.shape == (140, 90, 3)
    assert np.abs(turned.astype(int) - np.rot90(PHOTO, -1)).mean() < 8  # chroma is stored at half resolution


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken"])
def test_what_cannot_be_decoded_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.png is not an image that can be decoded"):
        read_frame(path)


def test_a_frame_of_another_kind_is_refused() -> None:
    with pytest.raises(ImageError, match=r"a frame is uint8 H×W×3 RGB, got float64 \(4, 4, 3\)"):
        fit(np.zeros((4, 4, 3)), Size(64, 64))  # type: ignore[arg-type]
