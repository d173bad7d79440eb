import numpy as np
import pytest

from segdeploy import flavour
from segdeploy.run.device_array import DeviceArray
from segdeploy.run.session import open_session


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (2, 96, 160, 3), np.uint8)


def opened(graphs, provider):
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip(
            "onnxruntime-gpu is not installed: pip install onnxruntime-gpu, and no onnxruntime beside it"
        )
    return open_session(graphs("frames", None), provider=provider)


PROVIDERS = ["cuda", "tensorrt"] if flavour.is_installed(flavour.TENSORRT) else ["cuda"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_labels_of_the_cpu(provider, graphs, frames, seen):
    with open_session(graphs("frames", None)) as cpu, opened(graphs, provider) as session:
        agreement = float(np.mean(session.run(frames) == cpu.run(frames)))
    seen[f"onnxruntime {provider}"] = {"pixel_agreement_with_cpu": agreement}
    assert agreement >= 0.999


def test_from_the_gpu_to_the_gpu(gpu, graphs, frames):
    with opened(graphs, "cuda") as session, gpu.active():
        stream = gpu.stream()
        given, taken = gpu.allocate(frames.nbytes), gpu.allocate(frames[..., 0].nbytes)
        stream.upload(given, frames)
        stream.synchronise()
        inputs = DeviceArray(given.address, frames.shape, frames.dtype, given)
        out = DeviceArray(taken.address, frames.shape[:3], frames.dtype, taken)
        expected, labels = session.run(frames), np.empty(frames.shape[:3], np.uint8)
        for answer in (session.run_device(inputs, out), session.run_device(inputs)):
            stream.copy(taken.address, answer.address, labels.nbytes)
            stream.download(labels, taken)
            stream.synchronise()
            assert np.mean(labels == expected) >= 0.9999
        del answer
        given.free()
        taken.free()
        stream.free()
