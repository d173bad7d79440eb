"""Keeps where a training is, so that it goes on after a stop as if there had been none."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segdeploy import files
from segdeploy.errors import TrainingError

STATE = "training.state"


@dataclass
class TrainingState:
    key: str  # digest of all that decides the result: data, recipe, checkpoint
    step: int = 0  # steps that are done
    learning: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    best_miou: float = -1.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)  # what was measured while it learnt


def write_state(folder: Path, state: TrainingState) -> None:
    held = io.BytesIO()  # PyTorch's own writer says of a full disk what only it understands
    torch.save(vars(state), held)
    with files.replacing(folder / STATE) as part:
        part.write_bytes(held.getbuffer())


def read_state(folder: Path, key: str) -> TrainingState | None:
    """Read what was kept of the same training; None where nothing was, a refusal where it was of another."""
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        found = torch.load(path, weights_only=True)
        state = TrainingState(**found)
    except (OSError, RuntimeError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); remove it to begin again") from error
    if state.key != key:
        raise TrainingError(
            f"{path} is of a training with other data, another recipe or another checkpoint; name another folder with"
            " -o, or remove it"
        )
    return state
