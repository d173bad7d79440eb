"""Against mmsegmentation's rules, written out in plain PyTorch over the network that the graph was exported from."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import write_checkpoint

from segdeploy.assess.evaluate.windows import (
    multi_scale,
    scaled_size,
    sliding_window,
    starts,
    usual_stride,
    visits,
    window_logits,
)
from segdeploy.errors import ImageError, RequestError
from segdeploy.run.session import open_session, segment
from segdeploy.size import Size

WINDOW, STRIDE = (96, 160), (64, 100)
FRAMES = [(96, 160), (131, 211), (200, 333), (97, 161), (70, 300), (250, 120), (64, 77)]
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) * 255


def photo(height: int, width: int, seed: int = 0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """As `tiny`, of weights that give three of the classes a fair share of every frame."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "varied", seed=5)


@pytest.fixture(scope="module")
def network(checkpoint):
    from segdeploy.networks import build
    from segdeploy.networks.checkpoints import read_checkpoint

    return build(read_checkpoint(checkpoint)).plain


@pytest.fixture(scope="module", params=[1, 3, None], ids=["batch 1", "batch 3", "any batch"])
def session(checkpoint, tmp_path_factory, request):
    from segdeploy.convert.export import export_onnx

    path = tmp_path_factory.mktemp("graphs") / "varied.onnx"
    graph = export_onnx(checkpoint, interface="logits", batch=request.param, output=path)
    with open_session(graph.path) as opened:
        yield opened


def bilinear(maps, size):
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def slide(network, pixels):
    """Normalised pixels 1×3×H×W to logits 1×C×H×W; what is smaller than a window is padded and cut out again."""
    height, width = pixels.shape[2:]
    padded = F.pad(pixels, (0, max(WINDOW[1] - width, 0), 0, max(WINDOW[0] - height, 0)))
    total, count = 0, torch.zeros(padded.shape[2:])
    for step_down in range(max(padded.shape[2] - WINDOW[0] + STRIDE[0] - 1, 0) // STRIDE[0] + 1):
        for step_right in range(max(padded.shape[3] - WINDOW[1] + STRIDE[1] - 1, 0) // STRIDE[1] + 1):
            bottom = min(step_down * STRIDE[0] + WINDOW[0], padded.shape[2])
            right = min(step_right * STRIDE[1] + WINDOW[1], padded.shape[3])
            top, left = bottom - WINDOW[0], right - WINDOW[1]
            logits = bilinear(network(padded[:, :, top:bottom, left:right]), WINDOW)
            total = total + F.pad(logits, (left, padded.shape[3] - right, top, padded.shape[2] - bottom))
            count[top:bottom, left:right] += 1
    assert count.min() > 0
    return (total / count)[:, :, :height, :width]


def frame_pixels(frame):
    return (torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() - MEAN) / STD


def scaled(frame, factor):
    height, width = frame.shape[:2]
    return cv2.resize(frame, (int(width * factor + 0.5), int(height * factor + 0.5)))


@torch.inference_mode()
def reference_labels(network, frame, factor=1.0):
    logits = slide(network, frame_pixels(scaled(frame, factor)))
    return bilinear(logits, frame.shape[:2]).argmax(1)[0].numpy()


@torch.inference_mode()
def reference_multi_scale(network, frame, factors, flip):
    shares = []
    for factor in factors:
        pixels = frame_pixels(scaled(frame, factor))
        for mirrored in (False, True)[: 1 + flip]:
            logits = slide(network, pixels.flip(3) if mirrored else pixels)
            logits = logits.flip(3) if mirrored else logits
            shares.append(bilinear(logits, frame.shape[:2]).softmax(1))
    return torch.stack(shares).mean(0).argmax(1)[0].numpy()


def agreement(mine, theirs) -> float:
    assert mine.shape == theirs.shape and mine.dtype == np.uint8
    assert (
        np.sort(np.bincount(theirs.ravel()))[-2] > 0.05 * theirs.size
    )  # there is something to disagree about
    return float((mine == theirs).mean())


@pytest.mark.slow
@pytest.mark.parametrize("size", FRAMES, ids=str)
def test_window_logits_equal_plain_torch(session, network, size) -> None:
    frame = photo(*size)
    with torch.inference_mode():
        expected = slide(network, frame_pixels(frame))[0].numpy()
    made = window_logits(session, frame, Size(*STRIDE))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("session", [None], ids=["any batch"], indirect=True)
def test_windows_go_in_the_batches_that_an_engine_takes(session, monkeypatch) -> None:
    frame, given, run = photo(150, 300), [], session.run
    expected = window_logits(session, frame, Size(*STRIDE))
    monkeypatch.setattr(session, "batches", (2, 4))
    monkeypatch.setattr(session, "run", lambda inputs: given.append(len(inputs)) or run(inputs))
    made = window_logits(session, frame, Size(*STRIDE))
    np.testing.assert_allclose(made, expected, atol=1e-4 * np.abs(expected).max())
    assert set(given[:-1]) <= {4}
    assert given[-1] in (2, 3, 4)


@pytest.mark.parametrize("size", FRAMES, ids=str)
def test_sliding_window_equals_plain_torch(session, network, size) -> None:
    frame = photo(*size, seed=1)
    predict = sliding_window(session, Size(*STRIDE))
    assert agreement(predict(frame), reference_labels(network, frame)) >= 0.999


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.3])
def test_a_scaled_frame_comes_back_at_its_own_size(session, network, factor) -> None:
    frame = photo(151, 263, seed=2)
    predict = sliding_window(session, Size(*STRIDE), frame_scale=factor)
    assert agreement(predict(frame), reference_labels(network, frame, factor)) >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("flip", [False, True])
def test_multi_scale_equals_plain_torch(session, network, flip) -> None:
    frame, factors = photo(141, 233, seed=3), (0.5, 0.75, 1.0, 1.25)
    predict = multi_scale(session, factors, flip, Size(*STRIDE))
    assert agreement(predict(frame), reference_multi_scale(network, frame, factors, flip)) >= 0.999


def test_one_scale_without_flip_is_the_sliding_window(session) -> None:
    frame = photo(130, 200)
    np.testing.assert_array_equal(
        multi_scale(session, [1.0], stride=Size(*STRIDE))(frame),
        sliding_window(session, Size(*STRIDE))(frame),
    )


@pytest.mark.slow
def test_with_flip_a_mirrored_frame_has_the_mirrored_labels(session) -> None:
    frame = photo(141, 233, seed=4)
    predict = multi_scale(session, (1.0, 1.5), flip=True, stride=Size(*STRIDE))
    mirrored = np.ascontiguousarray(frame[:, ::-1])
    assert agreement(predict(mirrored)[:, ::-1], predict(frame)) >= 0.999
    without = multi_scale(session, (1.0, 1.5), stride=Size(*STRIDE))
    assert agreement(without(mirrored)[:, ::-1], without(frame)) < 0.999  # so the flip does something


def test_a_frame_of_the_window_is_segment(session) -> None:
    frame = photo(*WINDOW)
    np.testing.assert_array_equal(sliding_window(session)(frame), segment(session, frame).labels)


@pytest.mark.parametrize(
    ("length", "window", "stride", "expected"),
    [
        (96, 96, 64, [0]),
        (60, 96, 64, [0]),
        (97, 96, 64, [0, 1]),
        (160, 96, 64, [0, 64]),
        (161, 96, 64, [0, 64, 65]),
        (2048, 1024, 768, [0, 768, 1024]),
        (1024, 1024, 768, [0]),
        (200, 64, 64, [0, 64, 128, 136]),
    ],
)
def test_windows_start_where_mmsegmentation_starts_them(length, window, stride, expected) -> None:
    assert starts(length, window, stride) == expected
    assert len(expected) == max(length - window + stride - 1, 0) // stride + 1


def test_visits_are_exact() -> None:
    assert visits([0, 2, 3], 3, 6).tolist() == [1, 1, 2, 2, 2, 1]
    for length in range(64, 400, 7):
        counts = visits(starts(length, 64, 41), min(length, 64), length)
        assert counts.min() >= 1 and counts.sum() == len(starts(length, 64, 41)) * min(length, 64)


def test_usual_stride_is_two_thirds() -> None:
    assert usual_stride(Size(512, 769)) == Size(341, 512)


def test_scaled_sizes_are_mmcvs() -> None:
    assert scaled_size(Size(1024, 2048), 0.75) == Size(768, 1536)
    assert scaled_size(Size(101, 203), 0.5) == Size(51, 102)  # halves are rounded up
    assert scaled_size(Size(1024, 2048), Size(768, 1536)) == Size(768, 1536)
    assert scaled_size(Size(1024, 2048), Size(768, 1536), 0.5) == Size(384, 768)
    assert scaled_size(Size(2048, 1024), Size(768, 1536)) == Size(1536, 768)  # the box lies as the frame does
    assert scaled_size(Size(375, 1242), Size(1024, 2048)) == Size(618, 2048)  # the aspect is kept


@pytest.mark.parametrize("interface", ["nvinfer", "frames"])
@pytest.mark.parametrize("make", [sliding_window, lambda session: multi_scale(session, [1.0])])
def test_other_interfaces_are_refused_with_the_remedy(graphs, interface, make) -> None:
    with (
        open_session(graphs(interface)) as other,
        pytest.raises(
            RequestError, match=f"interface '{interface}'; .* segdeploy export CHECKPOINT --interface logits"
        ),
    ):
        make(other)


@pytest.mark.parametrize("stride", [Size(97, 160), Size(96, 161), Size(0, 10)])
def test_a_stride_that_leaves_gaps_is_refused(session, stride) -> None:
    with pytest.raises(RequestError, match=f"a stride of {stride} leaves gaps between windows of 96x160"):
        sliding_window(session, stride)


def test_scales_that_make_no_sense_are_refused(session) -> None:
    with pytest.raises(RequestError, match="no scales are given"):
        multi_scale(session, [])
    for scale in (0.0, -1.0, float("nan"), 17.0):
        with pytest.raises(RequestError, match=f"{scale} is not a scale"):
            multi_scale(session, [1.0, scale])
        with pytest.raises(RequestError, match=f"{scale} is not a scale"):
            sliding_window(session, frame_scale=scale)


def test_a_frame_of_another_kind_is_refused(session) -> None:
    with pytest.raises(ImageError, match=r"a frame is uint8 H×W×3 RGB, got uint8 \(90, 140\)"):
        sliding_window(session)(np.zeros((90, 140), np.uint8))
