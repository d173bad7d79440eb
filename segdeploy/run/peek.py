"""Reads what a model says of itself, without computing with it."""

from __future__ import annotations

from pathlib import Path

from segdeploy.graph.load import read_graph
from segdeploy.model.card import ModelCard
from segdeploy.model.signature import Signature
from segdeploy.run.address import ModelAddress
from segdeploy.run.session import open_session


def signature_in(model: Path | ModelAddress, card: ModelCard | None = None) -> Signature:
    """Read the input, the output and the classes of a model; an engine is loaded for them, a server asked."""
    if isinstance(model, Path) and model.suffix != ".engine":
        return read_graph(model, card, weights=False).signature
    with open_session(model, card=card) as session:
        return session.signature
