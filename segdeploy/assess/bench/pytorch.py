"""Runs a checkpoint in PyTorch itself, on the CPU or the GPU, to measure an exported graph against it.

`plain` is the network as published, `deployed` the one that `export` writes into graphs. Both have the graph's
interface, so that the same arrays go in and come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import MissingExtra, RequestError

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise MissingExtra("torch", "export", "running a checkpoint") from error

from segdeploy import networks
from segdeploy.assess.bench.timing_pytorch import TorchStream, TorchWork, event_maker, torch_lane
from segdeploy.model.signature import INTERFACES, Signature
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.interface import WithInterface, card_of, signature_for
from segdeploy.run.device_lane import start_of_time, timed_once
from segdeploy.run.open_model import OpenModel
from segdeploy.run.timing import Lanes, Modes, Query
from segdeploy.size import Size

NETWORKS = ("plain", "deployed")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Eager:
    """Holds a checkpoint's network, ready to run in PyTorch."""

    name: str
    network: nn.Module
    signature: Signature
    digest: str  # of the weights


def open_eager(
    source: str,
    *,
    device: str = "cpu",
    network: str = "plain",
    interface: str = "nvinfer",
    size: Size | None = None,
    fp16: bool = False,
    threads: int | None = None,
) -> EagerSession:
    for what, value, known in (
        ("device", device, DEVICES),
        ("network", network, NETWORKS),
        ("interface", interface, INTERFACES),
    ):
        if value not in known:
            raise RequestError(f"PyTorch has no {what} {value!r} here; known: {', '.join(known)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise RequestError(f"PyTorch {torch.__version__} finds no GPU here; leave out --provider for the CPU")
    if device == "cpu" and fp16:
        raise RequestError("FP16 in PyTorch is for the GPU; on a CPU it is slower than FP32")
    if threads is not None:
        torch.set_num_threads(threads)
    eager = assemble(source, network, interface, size, fp16)
    return EagerSession(eager) if device == "cpu" else CudaSession(eager)


def assemble(source: str, network: str, interface: str, size: Size | None, fp16: bool) -> Eager:
    checkpoint = read_checkpoint(source)
    card = card_of(checkpoint, None)
    pair = networks.build(checkpoint)
    signature = signature_for(card, interface, size or card.size, None, pair.deployed.output)
    factors = torch.tensor(card.std).reciprocal() / torch.tensor(signature.scale)
    if network == "deployed":
        pair.deployed.scale_input(factors)
        pair.deployed.fit(signature.size, checkpoint.options)
    chosen = pair.deployed if network == "deployed" else pair.plain
    inner: Any = Inner(chosen, None if network == "deployed" else factors, fp16)
    return Eager(
        Path(source).name, WithInterface(inner, card, signature).eval(), signature, checkpoint.digest
    )


class Inner(nn.Module):
    """Wraps a network of either kind: takes the interface's pixels, and computes in FP16 if asked to."""

    def __init__(self, network: Any, factors: Tensor | None, fp16: bool) -> None:
        super().__init__()
        self.dtype = torch.float16 if fp16 else torch.float32
        self.network = network.to(self.dtype)
        self.factors = None if factors is None else nn.Buffer(factors.reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        if self.factors is not None:
            pixels = pixels * self.factors
        logits: Tensor = self.network(pixels.to(self.dtype))
        return logits.float()


class EagerSession(OpenModel):
    """Runs a checkpoint on the CPU; threads may share it."""

    device = "cpu"

    def __init__(self, eager: Eager) -> None:
        self.name, self.signature = eager.name, eager.signature
        self.digest = eager.digest
        self.batches = (self.signature.batch or 1,) * 2
        self._network = eager.network

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        self.signature.demand_input(inputs)
        with torch.inference_mode():
            return as_array(self._network(torch.from_numpy(inputs)))

    def close(self) -> None:
        del self._network


class CudaSession(EagerSession):
    """Runs a checkpoint on the GPU, and times each part of a query there."""

    device = "cuda"

    def __init__(self, eager: Eager) -> None:
        super().__init__(eager)
        self._network.cuda()

    def run(self, inputs: NDArray[Any]) -> NDArray[Any]:
        return self.run_timed(inputs)[0]

    def demand_batch(self, batch: int) -> None:
        """Accept any batch that fits into memory."""

    @contextmanager
    def lanes(self, inputs: NDArray[Any], modes: Modes) -> Iterator[Lanes]:
        self.signature.demand_input(inputs)
        with torch.inference_mode():
            host_input = torch.from_numpy(inputs).pin_memory()
            given = host_input.cuda()
            host_answer = self._network(given).cpu().pin_memory()
            works = [
                TorchWork(
                    torch.cuda,
                    self._network,
                    given.clone(),
                    host_input,
                    torch.empty_like(host_answer),
                    cuda_graph=modes.cuda_graph,
                )
                for _ in range(modes.streams)
            ]
            start = start_of_time(event_maker(torch.cuda), works[0].compute)
            lanes = [torch_lane(torch.cuda, work, modes, start) for work in works]
            yield Lanes(lanes, ran(modes, works[0].without_graph))
            torch.cuda.synchronize()

    def run_timed(self, inputs: NDArray[Any]) -> tuple[NDArray[Any], Query]:
        self.signature.demand_input(inputs)
        once = Once(self._network, inputs)
        with torch.inference_mode():
            query = timed_once(once, TorchStream(torch.cuda.current_stream()), event_maker(torch.cuda))
        return once.host_answer, query


class Once:
    """Runs one query on PyTorch's current stream, from pageable memory and back."""

    def __init__(self, network: Any, inputs: NDArray[Any]) -> None:
        self._network, self._inputs = network, inputs
        self._given: Any = None
        self._answer: Any = None
        self.host_answer: NDArray[Any] = np.empty(0)

    def upload(self, _: TorchStream) -> None:
        self._given = torch.from_numpy(self._inputs).cuda()

    def infer(self) -> None:
        self._answer = self._network(self._given)

    def download(self, _: TorchStream) -> None:
        self.host_answer = as_array(self._answer.cpu())


def ran(modes: Modes, without_graph: str) -> dict[str, Any]:
    return {
        "clock": "device",
        "transfers": "included" if modes.transfers else "excluded",
        "cuda_graph": f"off: {without_graph}" if without_graph else "on",
        "wait": "spin" if modes.spin else "blocking",
        "streams": modes.streams,
    }


def as_array(answer: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = answer.numpy()
    return array
