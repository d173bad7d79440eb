"""Tells which of several processes this is, as `torchrun` starts them; one process is the usual case."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as distributed
from torch import Tensor

from segdeploy.errors import RequestError


@dataclass(frozen=True)
class Processes:
    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def summed(self, value: Tensor) -> Tensor:
        """Add a detached value up over all processes."""
        if self.count > 1:
            distributed.all_reduce(value)
        return value

    def wait(self) -> None:
        if self.count > 1:
            distributed.barrier()


def chosen_device(device: str | None) -> str:
    """Give the device that was asked for, or a GPU where there is one; refuses what is not here."""
    if device not in (None, "cpu", "cuda"):
        raise RequestError(f"a network is trained on cpu or cuda, and {device!r} was asked for")
    if device == "cuda" and not torch.cuda.is_available():
        raise RequestError(f"PyTorch {torch.__version__} finds no GPU here; leave out --device for the CPU")
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def joined_processes(device: str | None) -> Iterator[Processes]:
    """Join the processes that `torchrun` started, if it did; `device` None: a GPU where there is one."""
    chosen = chosen_device(device)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(device=chosen)
        return
    if chosen == "cuda":
        chosen = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.startswith("cuda") else "gloo")
    try:
        yield Processes(distributed.get_rank(), count, chosen)
    finally:
        distributed.destroy_process_group()
