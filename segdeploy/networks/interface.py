"""A network of either kind behind the input and the output that an interface promises."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdeploy import networks
from segdeploy.errors import CardError
from segdeploy.model.card import ModelCard, card_for_checkpoint, read_card
from segdeploy.model.signature import ONE_SCALE, TENSOR_NAMES, Signature, TensorFacts
from segdeploy.networks.checkpoints import Checkpoint
from segdeploy.size import Size


def upsampled(logits: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def card_of(checkpoint: Checkpoint, name: str | None) -> ModelCard:
    """The card that was asked for, the shipped one this checkpoint belongs to, or one made from its own files."""
    if name is None:
        return card_for_checkpoint(checkpoint.source, checkpoint.config, checkpoint.preprocessor)
    card = read_card(name)
    classes = len(checkpoint.config["id2label"])
    if classes != len(card.labels.names):
        raise CardError(
            f"{checkpoint.source} predicts {classes} classes, the card {card.name!r} has {len(card.labels.names)}"
            f" ({card.labels.name}); leave out --card to take the checkpoint's own labels"
        )
    return card


def signature_of(card: ModelCard, interface: str, size: Size, batch: int | None) -> Signature:
    height, width = size.height, size.width
    input_name, output_name = TENSOR_NAMES[interface]
    if interface == "frames":
        eaten = TensorFacts(input_name, "uint8", (batch, height, width, 3))
    else:
        eaten = TensorFacts(input_name, "float32", (batch, 3, height, width))
    answered = {
        "nvinfer": TensorFacts(output_name, "int64", (batch, 1, height, width)),
        "frames": TensorFacts(output_name, "uint8", (batch, height, width)),
        "logits": TensorFacts(
            output_name, "float32", (batch, len(card.labels.names), -(-height // 4), -(-width // 4))
        ),
    }[interface]
    scale = 1.0 if interface == "frames" else ONE_SCALE
    return Signature(
        interface, eaten, answered, size, batch, card.mean, (scale,) * 3, card.labels, card.resize, card.name
    )


class WithInterface(nn.Module):
    """The network between the input and the output that an interface promises."""

    def __init__(self, network: networks.Deployed, card: ModelCard, signature: Signature) -> None:
        super().__init__()
        self.network = network
        self.interface = signature.interface
        self.mean = nn.Buffer(torch.tensor(card.mean).reshape(1, 3, 1, 1))

    def forward(self, given: Tensor) -> Tensor:
        if self.interface != "frames":
            logits = self.network(given)
            if self.interface == "logits":
                return logits
            return upsampled(logits, given.shape[-2:]).argmax(1, keepdim=True)
        pixels = given.float().permute(0, 3, 1, 2) - self.mean  # TensorRT computes with uint8 only to cast it
        return upsampled(self.network(pixels), pixels.shape[-2:]).argmax(1).to(torch.uint8)
