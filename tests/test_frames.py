"""The kernels that fit and label frames, run on the CPU, beside what the CPU's own way gives: bit for bit."""

import ctypes
from dataclasses import replace

import numpy as np
import pytest
from emulated_kernels import COMPILER, NAMES, NumpyBatch, compile_kernels, emulated_kernels, signature_of
from fake_runtime import FakeDevice, at

from segdeploy.picture import image
from segdeploy.run import frames as frames_on_gpu
from segdeploy.run.frames import KERNELS, FrameLabels, macros_for, why_not_on_gpu
from segdeploy.run.io import from_output, to_input
from segdeploy.run.session import segmentation_of
from segdeploy.size import Size

needs_compiler = pytest.mark.skipif(
    COMPILER is None, reason="there is no g++ here to compile the kernels with"
)
FRAMES = [(45, 83), (33, 20), (64, 96), (128, 192), (7, 5), (1, 1), (300, 41)]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The kernels for a signature, compiled once for each set of types."""
    made, folder = {}, tmp_path_factory.mktemp("kernels")

    def kernels(signature):
        macros = macros_for(signature)
        name = "".join(sorted(macros.values())).replace(" ", "_") + ".so"
        if name not in made:
            made[name] = emulated_kernels(compile_kernels(macros, folder / name))
        return made[name]

    return kernels


def both_ways(emulated, signature, frames, answer, how="stretch", kernel="linear"):
    """The input and the labels of the kernels, and of the CPU's own way."""
    slots = len(answer)
    device = FakeDevice()
    with device.active():
        labelled, batch = FrameLabels(device, emulated(signature)), NumpyBatch(device, signature, answer)
        labels = labelled.label(batch, signature, frames, slots, how, kernel)
        labelled.free()
        batch.free()
    assert (device.live, device.streams) == (set(), {})
    fitted = np.zeros((slots, signature.size.height, signature.size.width, 3), np.uint8)
    places = []
    for slot, frame in enumerate(frames):
        fitted[slot], geometry = image.fit(frame, signature.size, how, kernel)
        places.append(geometry)
    expected = None
    if labels is not None:
        given = from_output(signature, answer)
        pairs = zip(given, places, strict=False)
        expected = [segmentation_of(signature, one, geometry).labels for one, geometry in pairs]
    return batch.input, to_input(signature, fitted), labels, expected


def same(labels, expected):
    return all(
        np.array_equal(one, other) and one.dtype == other.dtype
        for one, other in zip(labels, expected, strict=True)
    )


def frames_of(sizes, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def ids_for(signature, slots, seed=0):
    shape = (slots, *signature.output.shape[1:])
    return np.random.default_rng(seed).integers(0, signature.classes, shape).astype(signature.output.dtype)


def logits_for(signature, slots, make, seed=0):
    draw = np.random.default_rng(seed)
    shape = (slots, *signature.output.shape[1:])
    logits = draw.standard_normal(shape).astype(np.float32)
    if make == "ties":
        return np.round(logits)
    if make == "areas":  # one class leads in each block, nearly or clearly, with others equal to it in places
        small = np.repeat(np.repeat(np.round(logits[..., ::4, ::4]), 4, -2), 4, -1)
        logits = np.ascontiguousarray(small[..., : shape[-2], : shape[-1]])
        logits[:, -1] = np.nextafter(logits[:, 0], np.float32(9))
    return logits


@needs_compiler
@pytest.mark.parametrize("how", ["stretch", "letterbox"])
@pytest.mark.parametrize("kernel", ["linear", "pillow"])
@pytest.mark.parametrize(
    "signature",
    [signature_of(), signature_of("nvinfer", ids="int64"), signature_of("nvinfer", ids="int32", last=True),
     signature_of("frames", last=False)],
    ids=["bytes", "floats", "floats last", "bytes by plane"],
)  # fmt: skip
def test_frames_are_fitted_as_on_the_cpu(signature, kernel, how, emulated):
    frames = frames_of(FRAMES)
    answer = ids_for(signature, len(frames) + 1)  # a slot more than frames: it is black
    given, expected, labels, known = both_ways(emulated, signature, frames, answer, how, kernel)
    assert np.array_equal(given, expected)
    assert same(labels, known)


@needs_compiler
@pytest.mark.parametrize("make", ["noise", "ties", "areas"])
@pytest.mark.parametrize("how", ["stretch", "letterbox"])
@pytest.mark.parametrize(
    "facts",
    [{}, {"aligned": True}, {"classes": 150, "sides": (9, 7)}, {"classes": 300, "sides": (5, 6)},
     {"classes": 1}, {"last": True, "classes": 21}, {"sides": (64, 96), "classes": 2}, {"sides": (1, 1)}],
    ids=str,
)  # fmt: skip
def test_logits_are_labelled_as_on_the_cpu(facts, how, make, emulated):
    signature = signature_of("logits", **facts)
    frames = frames_of([(45, 83), (33, 20), (64, 96), (7, 150)])
    answer = logits_for(signature, len(frames), make if not facts.get("last") else "ties")
    _, _, labels, expected = both_ways(emulated, signature, frames, answer, how)
    assert same(labels, expected)


@needs_compiler
@pytest.mark.parametrize(
    ("signature", "value"),
    [(signature_of(), 19), (signature_of("nvinfer", ids="int64"), -256), (signature_of("nvinfer", ids="int32"), 275),
     (signature_of("logits"), np.nan), (signature_of("logits"), np.inf), (signature_of("logits"), -np.inf)],
)  # fmt: skip
def test_what_is_no_class_is_left_to_the_cpu(signature, value, emulated):
    frames = frames_of([(64, 96)])
    answer = ids_for(signature, 1) if signature.interface != "logits" else logits_for(signature, 1, "noise")
    assert both_ways(emulated, signature, frames, answer)[2] is not None
    answer.reshape(-1)[answer.size // 2] = value
    assert both_ways(emulated, signature, frames, answer)[2] is None


@needs_compiler
def test_only_cells_of_several_classes_are_interpolated(emulated):
    """With logits taken away before the last kernel, what needs none of them still has its label."""
    signature = signature_of("logits", classes=2)
    answer = np.zeros((1, 2, 16, 24), np.float32)
    answer[:, 1, :, 12:] = 1
    kernels, seen = dict(emulated(signature)), []
    raise_labels, nothing = kernels["raiseLabels"], np.full_like(answer, np.nan)

    def without_logits(size, arguments):
        raise_labels(size, [ctypes.c_void_p(nothing.ctypes.data), *arguments[1:]])
        seen.append(at(arguments[-1].value, (160, 240), np.uint8).copy())

    kernels["raiseLabels"] = without_logits
    assert both_ways(lambda _: kernels, signature, frames_of([(160, 240)]), answer)[2] is None
    assert 0 < np.mean(seen[0] == 255) < 0.1
    assert np.mean(seen[0] == 0) > 0.4 < np.mean(seen[0] == 1)


@needs_compiler
def test_places_are_kept_for_each_size_and_forgotten(emulated, monkeypatch):
    monkeypatch.setattr(frames_on_gpu, "MOST_SIZES", 2)
    signature, device = signature_of(), FakeDevice()
    with device.active():
        answer = ids_for(signature, 1)
        labelled, batch = FrameLabels(device, emulated(signature)), NumpyBatch(device, signature, answer)
        held = []
        for size in [(10, 12), (10, 12), (20, 12), (11, 12), (12, 12), (10, 12)]:
            (labels,) = labelled.label(batch, signature, frames_of([size]), 1, "stretch", "linear")
            geometry = image.geometry_of(Size(*size), signature.size)
            assert np.array_equal(labels, image.unfit(answer[0], geometry))
            held.append(len(labelled._placed))
        assert held == [1, 1, 2, 3, 1, 2]
        labelled.free()
        batch.free()
    assert device.live == set()


def test_what_the_kernels_do_not_have():
    assert why_not_on_gpu(signature_of()) is None
    assert why_not_on_gpu(signature_of("logits", classes=300)) is None
    assert why_not_on_gpu(signature_of(classes=256)) == "256 classes leave no label for what is no class"
    half = signature_of("logits")
    eaten, given = half.input._replace(dtype="float16"), half.output._replace(dtype="float16")
    assert why_not_on_gpu(replace(half, input=eaten)) == "its input is float16"
    assert why_not_on_gpu(replace(half, output=given)) == "its logits are float16 (None, 19, 16, 24)"
    open_sides = half.output._replace(shape=(None, None, None, None))
    assert (
        why_not_on_gpu(replace(half, output=open_sides)) == "its logits are float32 (None, None, None, None)"
    )
    assert why_not_on_gpu(signature_of("nvinfer", ids="float64")) == "its labels are float64"


def test_the_kernels_that_are_launched_are_those_of_the_source():
    assert set(KERNELS) == set(NAMES)
