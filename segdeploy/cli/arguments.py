"""Arguments that several verbs have, each described once.

Their choices are spelled here where the module that knows them would make --help slow; a test compares the two.
"""

from __future__ import annotations

import argparse

from segdeploy.run.runtimes import providers, providers_in_words

FIT_CHOICES = ("stretch", "letterbox")
INTERFACE_CHOICES = ("nvinfer", "frames", "logits")
LAYOUT_CHOICES = ("side", "wipe")
NETWORK_CHOICES = ("plain", "deployed")
RESIZE_CHOICES = ("linear", "pillow")


def add_provider(parser: argparse.ArgumentParser, what: str = "an .onnx") -> None:
    parser.add_argument(
        "--provider", choices=providers(), help=f"where {what} is computed: {providers_in_words()}"
    )


def add_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fit",
        choices=FIT_CHOICES,
        default="stretch",
        help="how a frame gets the model's size (default: stretch)",
    )
    parser.add_argument(
        "--resize",
        choices=RESIZE_CHOICES,
        help="how a frame is resized: linear, as DeepStream does, or pillow (default: as the model was trained)",
    )
