"""Arguments that several verbs have, each described once.

Their choices are spelled here where the module that knows them would make --help slow; a test compares the two.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from segdeploy.errors import RequestError
from segdeploy.run.runtimes import PRECISIONS, precisions_in_words, providers, providers_in_words
from segdeploy.size import Size, is_number, parse_sizes

FIT_CHOICES = ("stretch", "letterbox")
INTERFACE_CHOICES = ("nvinfer", "frames", "logits")
LAYOUT_CHOICES = ("side", "wipe")
MASK_CHOICES = ("rle",)
NETWORK_CHOICES = ("plain", "deployed", "graph")
RESIZE_CHOICES = ("linear", "pillow")

# Bounds of what several verbs count, far above what is sensible: what is beyond was mistyped.
MOST_THREADS = 1024
MOST_BATCH = 1024
MOST_GPUS = 1024
MOST_IMAGES = 10_000_000
LONGEST_S = 1_000_000  # eleven days
SHORTEST_S = 0.001
RGB = "123.7,116.3,103.5"
LARGEST_SEED = 2**32 - 1
MOST_NUMBERS = 64  # in a list


def add_provider(parser: argparse.ArgumentParser, what: str = "an .onnx") -> None:
    parser.add_argument(
        "--provider", choices=providers(), help=f"where {what} is computed: {providers_in_words()}"
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        help=f"what a CPU computes an .onnx in: {precisions_in_words()} (default: the graph's own); bf16 and int8 are"
        " compared with the graph before they are used",
    )
    parser.add_argument(
        "--as-exported",
        action="store_true",
        help="run the graph itself, also where `tune` found a faster way",
    )


def add_described(parser: argparse._ActionsContainer) -> None:
    """Add what the user says of a network that no card describes."""
    parser.add_argument(
        "--classes", metavar="FILE", type=Path, help="the class names, one a line, or a .yaml with colours"
    )
    parser.add_argument(
        "--mean", metavar="R,G,B", type=list_between(0, 255, example=RGB), help="mean of its pixels, 0 to 255"
    )
    parser.add_argument(
        "--std",
        metavar="R,G,B",
        type=list_between(0.001, 1000, example=RGB),
        help="standard deviation of its pixels",
    )
    parser.add_argument(
        "--threshold",
        metavar="P",
        type=between(-1e9, 1e9, whole=False),
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


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        dest="gpu",
        type=between(0, MOST_GPUS - 1),
        metavar="N",
        help="the GPU to compute on, counted from 0 among those that CUDA shows (default: the first)",
    )


def add_processes(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--processes",
        type=between(1, MOST_THREADS),
        metavar="N",
        help=f"processes that each open the model and {what} (default: 1)",
    )


def add_ray(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="let the actors of a Ray cluster work, as in auto or host:6379; local starts Ray on this machine",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json, which means one thing on every verb that reports; `run` alone writes lines."""
    parser.add_argument(
        "--json",
        type=parse_json_file,
        metavar="FILE",
        nargs="?",
        const="-",
        help="print JSON instead of the text; with a name, as in facts.json, write it to that file beside the text",
    )


def parse_json_file(text: str) -> str:
    if text != "-" and not text.endswith(".json"):
        raise argparse.ArgumentTypeError(
            f"{text} is neither a .json file nor -; to print JSON, put --json last"
        )
    if text.endswith((".onnx.json", ".engine.json")):
        raise argparse.ArgumentTypeError(f"{text} is the record of {text[:-5]}; name another file")
    return text


def between(least: float, most: float, *, whole: bool = True) -> Callable[[str], float]:
    """Give the type of a number that is not outside `least` to `most`; every flag that takes a number has one."""
    kind = int if whole else float

    def number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a {'whole ' if whole else ''}number, {least:,} to {most:,}"
            ) from None
        if not least <= value <= most:  # nor nan
            raise argparse.ArgumentTypeError(f"{text} is outside {least:,} to {most:,}")
        return value

    return number


def parse_batch(text: str) -> int | None:
    """None is any batch."""
    if text == "dynamic":
        return None
    if not is_number(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor `dynamic`")
    return int(between(1, MOST_BATCH)(text))


def parse_size(text: str) -> Size:
    try:
        return Size.parse(text)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_size_list(text: str) -> tuple[Size, ...]:
    """Take one size, or several with commas between."""
    try:
        return parse_sizes(text)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def list_between(
    least: float, most: float, *, whole: bool = False, example: str = "0.5,1,1.5"
) -> Callable[[str], tuple[float, ...]]:
    """Give the type of a list of numbers with commas between, each from `least` to `most`."""
    number = between(least, most, whole=whole)

    def numbers(text: str) -> tuple[float, ...]:
        parts = text.split(",")
        if len(parts) > MOST_NUMBERS:
            raise argparse.ArgumentTypeError(f"{len(parts)} numbers are more than {MOST_NUMBERS}")
        try:
            return tuple(number(part) for part in parts)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(
                f"{error}; expected some with commas between, as in {example}"
            ) from None

    return numbers
