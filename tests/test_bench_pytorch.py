"""A checkpoint in PyTorch, and its queries on a GPU that is only a clock."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from segdeploy import scenes
from segdeploy.assess.bench.pytorch import open_eager, ran
from segdeploy.assess.bench.timing_pytorch import TorchStream, TorchWork, event_maker, torch_lane
from segdeploy.errors import RequestError
from segdeploy.prove.agreement import compare_logits
from segdeploy.run.device_lane import start_of_time
from segdeploy.run.io import to_input
from segdeploy.run.session import open_session, segment
from segdeploy.run.timing import Modes
from segdeploy.size import Size


@pytest.fixture(autouse=True)
def threads():
    """PyTorch has one number of threads for all: the next test gets it back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["plain", "deployed"])
@pytest.mark.parametrize("interface", ["nvinfer", "frames", "logits"])
def test_a_checkpoint_answers_as_its_graph_does(tiny, graphs, interface, network):
    frame = scenes.make_scene(3, 96, 160).image
    with (
        open_eager(str(tiny), network=network, interface=interface, threads=1) as eager,
        open_session(graphs(interface), threads=1) as graph,
    ):
        assert eager.signature.input._replace(shape=graph.signature.input.shape) == graph.signature.input
        inputs = to_input(graph.signature, frame[None])
        answers, expected = eager.run(inputs), graph.run(inputs)
        assert (answers.dtype, answers.shape) == (expected.dtype, expected.shape)
        if interface == "logits":
            assert compare_logits(expected, answers) < 1e-4
        else:
            assert (answers == expected).mean() > 0.999


@pytest.mark.slow
def test_any_batch_and_size(tiny):
    with open_eager(str(tiny), interface="frames", size=Size(64, 128), threads=1) as eager:
        assert repr(eager) == (
            f"<EagerSession of {tiny.name} on cpu: 'frames' uint8 ?×64×128×3 to 'labels' uint8 ?×64×128>"
        )
        assert eager.run(np.zeros((3, 64, 128, 3), np.uint8)).shape == (3, 64, 128)
        assert segment(eager, scenes.make_scene(0, 90, 140).image).labels.shape == (90, 140)
        with pytest.raises(RequestError, match="this graph takes 'frames' uint8 "):
            eager.run(np.zeros((1, 64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"network": "exported"}, "PyTorch has no network 'exported' here; known: plain, deployed"),
        ({"interface": "labels"}, "PyTorch has no interface 'labels' here; known: nvinfer, frames, logits"),
        ({"device": "tensorrt"}, "PyTorch has no device 'tensorrt' here; known: cpu, cuda"),
        ({"fp16": True}, "FP16 in PyTorch is for the GPU; on a CPU it is slower than FP32"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened(tiny, wrong, said):
    with pytest.raises(RequestError) as caught:
        open_eager(str(tiny), **wrong)
    assert str(caught.value) == said


def test_no_gpu(tiny, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RequestError, match="finds no GPU here; leave out --provider for the CPU"):
        open_eager(str(tiny), device="cuda")


# ---- lanes on the GPU --------------------------------------------------------------------------------------------


class Cuda:
    """What a lane uses of torch.cuda. Work on a stream begins when what lies before it, there or elsewhere, is over."""

    def __init__(self, *, refuses_graphs=False):
        self.refuses_graphs = refuses_graphs
        self.said = []
        self.now = None  # the stream in force
        cuda = self

        class Stream:
            def __init__(self):
                self.clock = 0.0

            def synchronize(self):
                cuda.said.append("synchronise")

            def wait_event(self, event):
                self.clock = max(self.clock, event.at)

        class Event:
            def __init__(self, enable_timing=False, blocking=False):
                assert enable_timing
                self.blocking = blocking
                self.at = None

            def record(self, stream=None):
                self.at = 0.0 if stream is None else stream.clock

            def synchronize(self):
                assert self.at is not None
                cuda.said.append("wait")

            def elapsed_time(self, later):
                return later.at - self.at

        class CUDAGraph:
            def replay(self):
                cuda.said.append("replay")
                cuda.now.clock += 3

        self.Stream, self.Event, self.CUDAGraph = Stream, Event, CUDAGraph

    @contextmanager
    def stream(self, stream):
        before, self.now = self.now, stream
        yield
        self.now = before

    @contextmanager
    def graph(self, graph, stream):
        if self.refuses_graphs:
            raise RuntimeError("operation not permitted when stream is capturing\nmore words")
        clock = stream.clock
        with self.stream(stream):
            yield
        stream.clock = clock  # captured work does not run


class Tensor:
    def __init__(self, cuda, name):
        self.cuda, self.name = cuda, name

    def copy_(self, source, non_blocking):
        assert non_blocking
        self.cuda.said.append(f"{source.name} to {self.name}")
        self.cuda.now.clock += 1 if self.name == "given" else 2


def lane_of(cuda, modes):
    def forward(given):
        cuda.said.append("forward")
        cuda.now.clock += 5
        return Tensor(cuda, "answer")

    tensors = [Tensor(cuda, name) for name in ("given", "host input", "host answer")]
    work = TorchWork(cuda, forward, *tensors, cuda_graph=modes.cuda_graph)
    make_event, stream = event_maker(cuda), cuda.Stream()  # whose clock stands at 0
    start = start_of_time(make_event, TorchStream(stream))
    cuda.said.clear()
    return work, torch_lane(cuda, work, modes, start)


def test_a_query_with_transfers():
    cuda = Cuda()
    _, lane = lane_of(cuda, Modes(transfers=True, cuda_graph=False, spin=False))
    lane.start()
    lane.start()
    first, second = lane.finish(), lane.finish()
    assert cuda.said == ["host input to given", "forward", "answer to host answer"] * 2 + ["wait"] * 2
    for query in (first, second):
        assert (query.h2d_ms, query.compute_ms, query.d2h_ms) == (1, 5, 2)
        assert query.enqueue_ms >= 0
    # The stream computed for 5 ms before time was taken, to warm up; the second query is copied meanwhile.
    assert (first.start_h2d, first.start_compute, first.start_d2h) == (0, 5, 10)
    assert (second.start_h2d, second.start_compute, second.start_d2h) == (1, 10, 15)
    assert all(event.event.blocking for event in lane._idle[0])


def test_a_query_without_transfers_replays_its_graph():
    cuda = Cuda()
    work, lane = lane_of(cuda, Modes(transfers=False, cuda_graph=True, spin=True))
    assert work.without_graph == ""
    lane.start()
    query = lane.finish()
    assert cuda.said == ["replay", "wait"]
    assert query.compute_ms == 3
    assert query.start_h2d == query.end_h2d == query.start_compute
    assert query.start_d2h == query.end_d2h == query.end_compute
    assert not any(event.event.blocking for event in lane._idle[0])


def test_a_network_that_a_graph_cannot_hold_runs_without_and_says_so():
    cuda = Cuda(refuses_graphs=True)
    modes = Modes(cuda_graph=True)
    work, lane = lane_of(cuda, modes)
    lane.start()
    assert lane.finish().compute_ms == 5
    assert cuda.said == ["forward", "wait"]
    assert ran(modes, work.without_graph) == {
        "clock": "device",
        "transfers": "excluded",
        "cuda_graph": "off: operation not permitted when stream is capturing",
        "wait": "spin",
        "streams": 1,
    }


def test_a_lane_can_be_filled_again_and_again():
    cuda = Cuda()
    _, lane = lane_of(cuda, Modes(transfers=True, cuda_graph=True))
    for _ in range(5):
        lane.start()
        lane.start()
        assert lane.finish().latency_ms == lane.finish().latency_ms == 6
