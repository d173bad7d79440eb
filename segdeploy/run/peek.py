"""Reads what a model says of itself, without computing with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segdeploy.errors import MissingExtra
from segdeploy.graph.load import read_graph
from segdeploy.model.card import ModelCard
from segdeploy.model.signature import Signature
from segdeploy.run.address import ModelAddress

if TYPE_CHECKING:
    from onnx import ModelProto


def signature_in(model: Path | ModelAddress, card: ModelCard | None = None) -> Signature:
    """Read the input, the output and the classes of a model; an engine is loaded for them, a server asked."""
    if isinstance(model, Path) and model.suffix != ".engine":
        return read_graph(model, card, weights=False).signature
    from segdeploy.run.session import (
        open_session,  # reads pictures, for which a graph's own words need nothing
    )

    with open_session(model, card=card) as session:
        return session.signature


def why_not_loaded(model: ModelProto) -> str | None:
    """Say why ONNX Runtime refuses a graph; None where it takes it, or is not installed here."""
    try:
        from segdeploy.run.ort import why_ort_refuses
    except MissingExtra:
        return None
    return why_ort_refuses(model)
