"""The argument MODEL: a graph or an engine, or a checkpoint whose graph is kept in the user's cache."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from segdeploy.cli.arguments import INTERFACE_CHOICES, parse_size
from segdeploy.cli.printing import print_message, print_talk
from segdeploy.errors import RequestError
from segdeploy.picture.video_location import as_typed
from segdeploy.run.address import ModelAddress, as_model, is_served
from segdeploy.shell import command_line

if TYPE_CHECKING:
    from segdeploy.convert.kept import KeptGraph

FLAGS = {
    "graph_size": "--size",
    "graph_interface": "--interface",
    "graph_fp16": "--fp16",
    "graph_revision": "--revision",
}


def add_model(
    parser: argparse.ArgumentParser,
    what: str,
    *,
    dest: str = "model",
    several: bool = False,
    own_fp16: bool = False,
    interface: str = INTERFACE_CHOICES[0],
    served: bool = False,
    chooses: bool = True,
) -> None:
    """Add MODEL, and what `export` would be asked for where that is a checkpoint; `own_fp16`: the verb has a --fp16.

    `served`: a model on a server will do too. With `chooses` the verb takes --size of a graph
    too, and runs it at that one of its sizes.
    """
    parser.add_argument(
        dest,
        metavar="MODEL",
        type=parse_model if served else parse_file,
        nargs="+" if several else None,
        help=f"{what}{', or triton://HOST:PORT/MODEL' * served}; or a checkpoint as `export` takes it, whose graph is"
        " then kept; or demo-b0, the bundled model",
    )
    parser.set_defaults(
        checkpoints_in=dest, kept_interface=interface, graphs_heed=("graph_size",) if chooses else ()
    )
    group = parser.add_argument_group("of the graph, where MODEL is a checkpoint")
    group.add_argument(
        "--size",
        dest="graph_size",
        type=parse_size,
        metavar="HxW",
        help="default: the card's" + ("; of a graph, one of its sizes" if chooses else ""),
    )
    group.add_argument(
        "--interface", dest="graph_interface", choices=INTERFACE_CHOICES, help=f"default: {interface}"
    )
    if not own_fp16:
        group.add_argument("--fp16", dest="graph_fp16", action="store_true", help="FP16 inside")
    group.add_argument(
        "--revision", dest="graph_revision", metavar="REV", help="branch, tag or commit on the Hub"
    )


def parse_model(text: str) -> Path | ModelAddress:
    """Take a file, a checkpoint, or the address of a model on a server."""
    try:
        return as_model(text)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_file(text: str) -> Path:
    """Refuse a model on a server, in which a verb cannot look."""
    if is_served(text):
        raise argparse.ArgumentTypeError(
            f"{as_typed(text)} is a model on a server, which run, evaluate, bench and verify take; name its file"
        )
    return Path(text)


def put_graphs(arguments: argparse.Namespace) -> None:
    """Put the kept graph of each checkpoint in its place, and say once how it is made by hand."""
    from segdeploy.networks.sources import is_own_code

    dest = arguments.checkpoints_in
    given = getattr(arguments, dest)
    models: list[Path | ModelAddress] = given if isinstance(given, list) else [given]
    for model in models:
        if is_own_code(str(model)):
            raise RequestError(
                f"{model} is code, which only `export` runs; first:"
                f" {command_line('segdeploy', 'export', model, '--size', 'HxW')}"
            )
    found = [graph_to_open(model, arguments) if isinstance(model, Path) else model for model in models]
    if found == models:
        demand_no_flags(arguments, models)
        return
    setattr(arguments, dest, found if isinstance(given, list) else found[0])
    arguments.graph_size = None  # the checkpoint's graph has it


def take_gpu(arguments: argparse.Namespace) -> None:
    """Let this process, and those that it starts, see the GPU that was asked for alone; nothing has called CUDA yet."""
    from segdeploy.run.gpu_choice import choose_gpu
    from segdeploy.run.runtimes import RUNTIMES

    provider = getattr(arguments, "provider", None)
    on_gpu = provider in {row.provider for row in RUNTIMES if row.on_gpu and row.provider}
    named = next(
        getattr(arguments, name) for name in ("models", "model", "engine") if hasattr(arguments, name)
    )
    for model in named if isinstance(named, list) else [named]:
        if is_served(model):
            raise RequestError(
                f"--device {arguments.gpu} is of this machine, and {as_typed(str(model))} is on a server; leave it"
                " out"
            )
        if not on_gpu and Path(model).suffix != ".engine":
            raise RequestError(
                f"--device {arguments.gpu} is of a GPU, and {Path(model).name} would run on the CPU; give --provider"
                " cuda or tensorrt, or an .engine"
            )
    choose_gpu(arguments.gpu)


def graph_to_open(model: Path, arguments: argparse.Namespace) -> Path:
    from segdeploy.convert.bundled import bundled_graph, is_bundled
    from segdeploy.networks.sources import is_checkpoint

    if is_bundled(model):
        demand_no_flags(arguments, [model], but="graph_interface")
        return bundled_graph(interface_asked(arguments))
    return kept_graph_for(model, arguments) if is_checkpoint(str(model)) else model


def interface_asked(arguments: argparse.Namespace) -> str:
    asked: str | None = arguments.graph_interface
    usual: str = getattr(arguments, "kept_interface", INTERFACE_CHOICES[0])
    return asked or usual


def demand_no_flags(arguments: argparse.Namespace, models: list[Path | ModelAddress], but: str = "") -> None:
    for name, flag in FLAGS.items():
        if name not in (but, *arguments.graphs_heed) and getattr(arguments, name, None):
            raise RequestError(
                f"{flag} is for a checkpoint, and {models[0].name} is a graph or an engine; leave it out"
            )


def kept_graph_for(source: Path, arguments: argparse.Namespace) -> Path:
    from segdeploy.cli.console import steps
    from segdeploy.convert.kept import WantedGraph, kept_graph

    wanted = WantedGraph(
        str(source),
        getattr(arguments, "card", None),
        arguments.graph_size,
        interface_asked(arguments),
        bool(getattr(arguments, "graph_fp16", False)),
        arguments.graph_revision,
    )
    with steps() as progress:
        kept = kept_graph(wanted, progress)
    tell_how(kept)
    return kept.path


def tell_how(kept: KeptGraph) -> None:
    for note in kept.notes:
        print_message(note)
    if kept.made:
        print_talk(f"the graph is kept as {kept.path}; to have it here: {kept.kept.command}")
