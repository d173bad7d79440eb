"""Engines of the tiny network, built, proven and run by each TensorRT that is installed."""

import threading
from dataclasses import asdict

import numpy as np
import pytest

from segdeploy import flavour
from segdeploy.cli import main
from segdeploy.convert.engine.build import build_from
from segdeploy.convert.engine.request import EngineRequest
from segdeploy.model.engine import Profile
from segdeploy.prove import verify
from segdeploy.run.device_array import DeviceArray
from segdeploy.run.session import open_session, segment_many
from segdeploy.run.tensorrt.engine import invalid_here
from segdeploy.run.tensorrt.session import TensorrtSession

INSTALLED = [name for name in flavour.NAMES if flavour.is_installed(name)]


@pytest.fixture(scope="module", params=INSTALLED or flavour.NAMES)
def here(request):
    if not flavour.is_installed(request.param):
        pytest.skip(f"{request.param} is not installed: {flavour.how_to_install(request.param)}")
    return flavour.open_flavour(request.param)


@pytest.fixture(scope="module")
def built(here, gpu, graphs, tmp_path_factory):
    """`built(1, 2, 4)`: an engine for these batches, if this GPU runs it."""
    made = {}

    def make(*batches):
        if batches not in made:
            request = EngineRequest(profile=Profile(*batches))
            done = build_from(
                graphs("frames", None), request, tmp_path_factory.mktemp("engines"), flavour=here
            )
            made[batches] = done
        verified = made[batches].record.engine.verified
        if verified.proof is None:
            pytest.xfail(f"{here} on {gpu.name}: {verified.why}")
        return made[batches].path

    return make


def frames_of(batch, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, 96, 160, 3), np.uint8)


def expected_of(graphs, frames):
    with open_session(graphs("frames", None)) as session:
        return session.run(frames)


def test_what_rtx_says_of_this_gpu(gpu, graphs, tmp_path, seen):
    """A finding, not a demand: TensorRT-RTX is for GeForce RTX and RTX PRO, and this may be another GPU."""
    if not flavour.is_installed(flavour.RTX):
        pytest.skip("tensorrt-rtx is not installed: pip install tensorrt-rtx")
    rtx = flavour.open_flavour(flavour.RTX)
    done = build_from(graphs("frames"), EngineRequest(), tmp_path, flavour=rtx)
    reasons = invalid_here(rtx, done.path.read_bytes())
    seen["tensorrt-rtx"] = {
        "version": str(rtx.version),
        "targets": list(done.record.engine.targets),
        "invalid_here": reasons,
        "why_not": verify.why_not(rtx, done.path),
        "verified": asdict(done.record.engine.verified),
    }
    assert bool(reasons) == (not done.record.engine.verified.proof)


@pytest.mark.parametrize("batches", [(1, 1, 1), (1, 2, 4)])
def test_built_and_proven(batches, here, built, seen):
    path = built(*batches)
    proof = open_record(path).engine.verified.proof
    seen[f"{here} {batches}"] = asdict(proof)
    assert proof.batches == tuple(sorted(set(batches)))
    assert main(["verify", str(path)]) == 0


def open_record(path):
    from segdeploy.model.record import read_record

    return read_record(path)


def test_answers_with_and_without_a_graph(here, built, graphs, seen):
    path = built(1, 2, 4)
    for graphs_on in (True, False):
        with TensorrtSession(path, graphs=graphs_on) as session:
            for turn, batch in enumerate((2, 2, 2, 4, 4, 1, 2)):
                frames = frames_of(batch, turn)
                assert np.mean(session.run(frames) == expected_of(graphs, frames)) >= 0.999
            if graphs_on:
                seen[f"{here} without_graph"] = session.without_graph
                assert session.without_graph is None


def test_two_in_flight_and_threads(built, graphs):
    wrong = []
    given = [frames_of(1 + seed % 4, seed) for seed in range(8)]
    expected = [expected_of(graphs, frames) for frames in given]
    with TensorrtSession(built(1, 2, 4)) as session:
        tickets = [session.submit(frames) for frames in given]
        for ticket, answer in zip(tickets, expected, strict=True):
            assert np.mean(session.result(ticket) == answer) >= 0.999

        def work(seed):
            for turn in range(20):
                place = (seed + turn) % len(given)
                if np.mean(session.run(given[place]) == expected[place]) < 0.999:
                    wrong.append((seed, turn))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_from_the_gpu_to_the_gpu(gpu, built, graphs):
    frames = frames_of(2, 5)
    with TensorrtSession(built(1, 2, 4)) as session, gpu.active():
        stream, given = gpu.stream(), gpu.allocate(frames.nbytes)
        stream.upload(given, frames)
        stream.synchronise()
        inputs = DeviceArray(given.address, frames.shape, frames.dtype, given)
        labels = np.empty(frames.shape[:3], np.uint8)
        for _ in range(3):
            answer = session.run_device(inputs)
            pinned = gpu.allocate(labels.nbytes)
            stream.copy(pinned.address, answer.address, labels.nbytes)
            stream.download(labels, pinned)
            stream.synchronise()
            pinned.free()
            assert np.array_equal(labels, session.run(frames))
        del answer
        given.free()
        stream.free()


@pytest.mark.parametrize("how", ["stretch", "letterbox"])
@pytest.mark.parametrize("interface", ["frames", "logits"])
def test_frames_are_labelled_on_the_gpu_as_on_the_processor(
    interface, how, here, gpu, graphs, tmp_path, seen, monkeypatch
):
    done = build_from(graphs(interface), EngineRequest(), tmp_path, flavour=here)
    if done.record.engine.verified.proof is None:
        pytest.xfail(f"{here} on {gpu.name}: {done.record.engine.verified.why}")
    draw = np.random.default_rng(3)
    frames = [draw.integers(0, 256, (*size, 3), np.uint8) for size in ((720, 1280), (97, 131), (96, 160))]
    with TensorrtSession(done.path) as session:
        labels = [one.labels for one in segment_many(session, frames, how)]
        seen[f"{here}, {interface}, without_kernels"] = session.without_kernels
        assert session.without_kernels is None
        monkeypatch.setattr(session, "label_frames", lambda *_: None)
        expected = [one.labels for one in segment_many(session, frames, how)]
    assert all(map(np.array_equal, labels, expected))


def test_with_pytorchs_tensors(built, graphs):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    frames = frames_of(2, 6)
    with TensorrtSession(built(1, 2, 4)) as session:
        expected = session.run(frames)
        with torch.cuda.stream(torch.cuda.Stream()):  # another one than the session's
            tensor = torch.from_numpy(frames).cuda(non_blocking=True)
            answer = torch.from_dlpack(session.run_device(tensor))
            assert np.array_equal(answer.cpu().numpy(), expected)
            out = torch.zeros_like(answer)
            session.run_device(tensor, out)
            assert np.array_equal(out.cpu().numpy(), expected)


def test_memory_comes_back(gpu, built):
    path = built(1, 2, 4)
    TensorrtSession(path).close()  # what CUDA loads once and keeps

    def free_bytes():
        with gpu.active():
            return gpu.memory().free_bytes

    before = free_bytes()
    for _ in range(5):
        with TensorrtSession(path) as session:
            session.run(frames_of(4))
    assert free_bytes() >= before - (16 << 20)
