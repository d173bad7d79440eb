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
from segdeploy.train.report import ClassScore, Reported


def score(network: nn.Module, card: ModelCard, dataset: Dataset, output: Output, device: str) -> Evaluation:
    """Score `network`, whose logits lie as `output` says, in its own size over whole images."""
    signature = signature_for(card, "frames", card.size, 1, output)
    inner: Any = Inner(network, torch.tensor(card.std).reciprocal().to(device), fp16=False)
    eager = Eager(card.name, WithInterface(inner, card, signature).eval(), signature, "")
    session = EagerSession(eager) if device == "cpu" else CudaSession(eager)
    return evaluate(whole_image(session), dataset, card.labels)


def reported_of(evaluation: Evaluation) -> Reported:
    scores, interval, dataset = evaluation.scores, evaluation.interval, evaluation.dataset
    classes = tuple(
        ClassScore(name, float(iou) if iou == iou else None)  # NaN differs from itself
        for name, iou in zip(dataset.labels.names, scores.iou, strict=True)
    )
    return Reported(
        str(dataset), len(dataset), scores.miou, scores.pixel_accuracy, interval.low, interval.high, classes
    )
