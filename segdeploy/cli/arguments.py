"""Arguments that several verbs have, each described once.

Their choices are spelled here where the module that knows them would make --help slow; a test compares the two.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from segdeploy.errors import RequestError
from segdeploy.run.runtimes import providers, providers_in_words
from segdeploy.size import Size, is_number

FIT_CHOICES = ("stretch", "letterbox")
INTERFACE_CHOICES = ("nvinfer", "frames", "logits")
LAYOUT_CHOICES = ("side", "wipe")
NETWORK_CHOICES = ("plain", "deployed", "graph")
RESIZE_CHOICES = ("linear", "pillow")


def add_provider(parser: argparse.ArgumentParser, what: str = "an .onnx") -> None:
    parser.add_argument(
        "--provider", choices=providers(), help=f"where {what} is computed: {providers_in_words()}"
    )


def add_described(parser: argparse._ActionsContainer) -> None:
    """Add what the user says of a network that no card describes."""
    parser.add_argument(
        "--classes", metavar="FILE", type=Path, help="the class names, one a line, or a .yaml with colours"
    )
    parser.add_argument("--mean", metavar="R,G,B", type=parse_numbers, help="mean of its pixels, 0 to 255")
    parser.add_argument("--std", metavar="R,G,B", type=parse_numbers, help="standard deviation of its pixels")
    parser.add_argument(
        "--threshold",
        metavar="P",
        type=float,
        help="value of one channel above which a pixel is the second class (default: a probability of 0.5)",
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


def add_json_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        type=parse_json_file,
        metavar="FILE",
        help="write JSON to this file; - prints it instead of the tables",
    )


def parse_json_file(text: str) -> str:
    if text != "-" and not text.endswith(".json"):
        raise argparse.ArgumentTypeError(f"{text} is neither a .json file nor -")
    return text


def at_least(least: int) -> Callable[[str], int]:
    """Give the type of an integer that is not less than `least`."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return integer


def parse_batch(text: str) -> int | None:
    """None is any batch."""
    if text == "dynamic":
        return None
    if not is_number(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor `dynamic`")
    return int(text)


def parse_size(text: str) -> Size:
    try:
        return Size.parse(text)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers, as in 0.5,1,1.5") from error
