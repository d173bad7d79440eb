"""Chooses the GPU that a process computes on, for every runtime at once: CUDA is shown that one alone.

CUDA reads its list of GPUs when it is first called, so this comes before. A number counts the GPUs that are seen
already: under `CUDA_VISIBLE_DEVICES=2,3` number 1 is the machine's fourth.
"""

from __future__ import annotations

import os

from segdeploy.errors import RequestError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpu(number: int) -> str:
    """Give what CUDA_VISIBLE_DEVICES must say for only this GPU to be seen."""
    told = os.environ.get(VISIBLE)
    if told is None:
        return str(number)
    seen = [name.strip() for name in told.split(",") if name.strip()]
    if number >= len(seen):
        raise RequestError(
            f"there is no GPU {number}: {VISIBLE} is {told!r}, which shows {len(seen)}; they are counted from 0"
        )
    return seen[number]


def choose_gpu(number: int) -> None:
    """Let this process see only one GPU."""
    os.environ[VISIBLE] = visible_gpu(number)
