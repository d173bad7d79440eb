"""Compares what a model on a server answers with its record, in time: the health check that Triton's own is not.

Triton says that a model is ready as long as it is loaded, also after the process that computes it has died. So golden
frames are sent, one alone and as many as fit in a batch, and each label is compared with those that the repository was
made with.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import EngineDisagrees, RequestError, ServerError
from segdeploy.model.card import card_called
from segdeploy.prove import agreement, golden
from segdeploy.prove.agreement import compare_labels
from segdeploy.prove.bounds import bounds_of_engine, demand_agreement
from segdeploy.run.address import ModelAddress
from segdeploy.run.io import to_input
from segdeploy.run.triton.session import TritonSession

DEADLINE_S = 4.5


@dataclass(frozen=True)
class ServedProof:
    """Holds what was seen when a served model was compared with its record."""

    model: str
    version: str
    artifact: str  # the file that the server has a copy of
    digest: str
    server: str
    pixel_agreement: float  # over all slots of all batches
    batches: tuple[int, ...]
    frames: int
    seconds: float


def verify_served(address: ModelAddress, deadline_s: float = DEADLINE_S) -> ServedProof:
    """Raise where the labels differ more than the bounds allow, or do not come in time."""
    began = time.monotonic()
    with TritonSession(address, until=began + deadline_s) as session:
        served = session.served
        if served is None or not served.golden:
            raise RequestError(
                f"{address.name} on {address.server} brings no golden frames, with which it could be compared; make its"
                " repository with: segdeploy triton MODEL -o REPOSITORY"
            )
        frames, labels = golden.read_golden(served.golden, session.signature.size)
        fixed = session.signature.batch
        batches = (fixed,) if fixed else tuple(sorted({1, min(session.most, len(frames))}))
        seen = []
        for batch in batches:
            places = np.arange(batch) % len(frames)
            answers = golden.labels_from_output(session.signature, answered(session, frames[places]))
            seen += [
                compare_labels(labels[p][None], one[None]) for p, one in zip(places, answers, strict=True)
            ]
        total = agreement.total(seen)
        what = f"{address.name} on {address.server} disagrees with the record of {served.artifact}"
        bounds = bounds_of_engine(served.precision, card_called(session.signature.card))
        remedy = "Start the server anew; if it disagrees again, make its repository again"
        demand_agreement(total, bounds, what, remedy, EngineDisagrees)
        worst = min(one.pixel_agreement for one in seen)
        if worst < bounds.pixel_agreement:
            raise EngineDisagrees(
                f"{what}: {worst:.4%} of the pixels in one slot; demanded are {bounds}. {remedy}"
            )
        return ServedProof(
            address.model, session.version, served.artifact, served.digest, session.device, total.pixel_agreement,
            batches, len(frames), time.monotonic() - began,
        )  # fmt: skip


def answered(session: TritonSession, frames: NDArray[np.uint8]) -> NDArray[Any]:
    """Run a batch; says what is worth knowing of a failure: the server may go on praising the model."""
    try:
        return session.run(to_input(session.signature, frames))
    except ServerError as error:
        if not session.is_ready():
            raise
        raise ServerError(
            f"{error}. The server still says that the model is ready: its process has died or hangs, so start the"
            " server anew"
        ) from error
