"""Shows a training to TensorBoard, where that is installed; the JSON lines beside it hold the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BOARD = "tensorboard"  # the folder


@contextmanager
def board_in(folder: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give what takes each event of a training; it does nothing without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda event: None
        return
    with SummaryWriter(str(folder / BOARD)) as writer:

        def show(event: dict[str, Any]) -> None:
            for name in ("loss", "miou", "rate"):
                writer.add_scalar(name, event[name], event["step"])
            writer.flush()

        yield show
