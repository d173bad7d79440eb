"""Scores a network in PyTorch as `evaluate` scores its graph: the same frames, resize and counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from segdeploy.assess.bench.pytorch import CudaSession, Eager, EagerSession, Inner
from segdeploy.assess.evaluate.evaluate import Evaluation, evaluate, whole_image
from segdeploy.datasets.dataset import Dataset
from segdeploy.model.card import ModelCard
from segdeploy.networks.family import Output
from segdeploy.networks.interface import WithInterface, signature_for


def score(network: nn.Module, card: ModelCard, dataset: Dataset, output: Output, device: str) -> Evaluation:
    """Score `network`, whose logits lie as `output` says, in its own size over whole images."""
    signature = signature_for(card, "frames", card.size, 1, output)
    inner: Any = Inner(network, torch.tensor(card.std).reciprocal().to(device), fp16=False)
    eager = Eager(card.name, WithInterface(inner, card, signature).eval(), signature, "")
    session = EagerSession(eager) if device == "cpu" else CudaSession(eager)
    return evaluate(whole_image(session), dataset, card.labels)
