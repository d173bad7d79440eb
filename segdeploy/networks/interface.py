"""Gives a network, plain or deployed, the input and the output of an interface."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy.errors import CardError
from segdeploy.model.card import ModelCard, card_for_checkpoint, read_card
from segdeploy.model.signature import Signature, signature_of
from segdeploy.networks.family import Checkpoint, DeployedNetwork, Output
from segdeploy.size import Size


def upsampled(logits: Tensor, size: torch.Size, align_corners: bool) -> Tensor:
    """Resize logits bilinearly to the input's size; returned as they are if they have it."""
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)


def card_of(checkpoint: Checkpoint, name: str | None) -> ModelCard:
    """Return the requested card, else the shipped one of this checkpoint, else one made from its own files."""
    if name is None:
        return card_for_checkpoint(
            checkpoint.source, checkpoint.family.name, checkpoint.config, checkpoint.preprocessor
        )
    card = read_card(name)
    if card.family not in ("", checkpoint.family.name):
        raise CardError(
            f"the card {card.name!r} says family {card.family!r}, and {checkpoint.source} is {checkpoint.family.title}"
            f" ({checkpoint.family.name}); correct the card, or leave out --card to take the checkpoint's own facts"
        )
    classes = len(checkpoint.config["id2label"])
    if classes != len(card.labels.names):
        raise CardError(
            f"{checkpoint.source} predicts {classes} classes, the card {card.name!r} has {len(card.labels.names)}"
            f" ({card.labels.name}); leave out --card to take the checkpoint's own labels"
        )
    return card


def signature_for(
    card: ModelCard, interface: str, size: Size, batch: int | None, output: Output
) -> Signature:
    """Make the signature of a graph to be exported; refuses a size that the network cannot take."""
    output.demand(size)
    logits = output.logits_size(size)
    sides = logits.height, logits.width
    return signature_of(card, interface, size, batch, sides, align_corners=output.align_corners)


class WithInterface(nn.Module):
    """Wraps a network with the input and the output of an interface."""

    def __init__(self, network: DeployedNetwork, card: ModelCard, signature: Signature) -> None:
        super().__init__()
        self.network = network
        self.interface, self.align_corners = signature.interface, signature.align_corners
        self.mean = nn.Buffer(torch.tensor(card.mean).reshape(1, 3, 1, 1))

    def forward(self, given: Tensor) -> Tensor:
        if self.interface != "frames":
            logits = self.network(given)
            if self.interface == "logits":
                return logits
            return upsampled(logits, given.shape[-2:], self.align_corners).argmax(1, keepdim=True)
        pixels = given.float().permute(0, 3, 1, 2) - self.mean  # TensorRT computes with uint8 only to cast it
        logits = upsampled(self.network(pixels), pixels.shape[-2:], self.align_corners)
        return logits.argmax(1).to(torch.uint8 if logits.shape[1] <= 256 else torch.uint16)
