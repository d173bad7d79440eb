"""Reads how a checkpoint's weights were trained, from the record that `finetune` and `distil` write beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segdeploy.errors import CheckpointError
from segdeploy.files import digest_of
from segdeploy.model.record import LedgerStep
from segdeploy.model.typed_json import WrongField, from_json
from segdeploy.untrusted import Unreadable, read_json

RECORD_OF_TRAINING, TRAINED_WEIGHTS = "segdeploy.training.json", "model.safetensors"
TRAINING_SCHEMA = 1


@dataclass(frozen=True)
class TrainingProof:
    """Holds the part of the record that those who use the weights read."""

    weights: str  # the digest of their file
    ledger: tuple[LedgerStep, ...]


def training_steps(folder: Path) -> tuple[LedgerStep, ...]:
    """Give the steps of a folder's record; none where it has no record, a refusal where it is of other weights."""
    path, weights = folder / RECORD_OF_TRAINING, folder / TRAINED_WEIGHTS
    if not path.is_file():
        return ()
    try:
        facts = read_json(path)
        known = (
            {key: facts[key] for key in ("weights", "ledger") if key in facts}
            if isinstance(facts, dict)
            else facts
        )
        proof = from_json(TrainingProof, known)
    except (Unreadable, WrongField) as error:
        raise CheckpointError(
            f"{path} is not a record of a training ({error}); remove it, or train again"
        ) from error
    if not weights.is_file() or digest_of(weights) != proof.weights:
        raise CheckpointError(
            f"{path} is of other weights than {weights.name} beside it; put back what it is of, or remove it"
        )
    return proof.ledger
