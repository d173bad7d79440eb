"""Answers frames with the published network in PyTorch, to hold a replay against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import DeepStreamError, MissingExtra

try:
    import torch
except ImportError as error:
    raise MissingExtra("torch", "export", "a reference in PyTorch") from error

from segdeploy import networks
from segdeploy.model.signature import Signature
from segdeploy.networks.checkpoints import read_checkpoint
from segdeploy.networks.interface import card_of, upsampled
from segdeploy.picture.image import Frame, fit
from segdeploy.prove.against_pytorch import reference_logits


class PyTorchReference:
    def __init__(self, source: str, signature: Signature) -> None:
        checkpoint = read_checkpoint(source)
        self._card = card_of(checkpoint, None)
        if self._card.labels.names != signature.labels.names:
            raise DeepStreamError(
                f"{source} has {len(self._card.labels.names)} classes ({self._card.labels.name}) and the graph"
                f" {signature.classes} ({signature.labels.name}); name the checkpoint that the graph was exported from"
            )
        pair = networks.build(checkpoint)
        self._network, self._aligned = pair.plain, pair.deployed.output.align_corners
        self._size = signature.size

    def __call__(self, frame: Frame) -> NDArray[np.int64]:
        """The frame stretched to the network bilinearly, the checkpoint's own normalisation, labels of that size."""
        fitted, _ = fit(frame, self._size)
        logits = reference_logits(self._network, fitted, self._card)
        size = torch.Size((self._size.height, self._size.width))
        return np.asarray(upsampled(logits, size, self._aligned).argmax(1)[0])
