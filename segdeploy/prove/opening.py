"""Opens models for every verb: as they were tuned on this machine, or as was asked for.

A precision below the graph's own is compared with the graph before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from segdeploy import files
from segdeploy.errors import GraphError
from segdeploy.machine import this_machine, versions_of
from segdeploy.model.card import ModelCard, as_card
from segdeploy.model.tuned import TunedChoice, read_tuned
from segdeploy.run import session as opened
from segdeploy.run.address import ModelAddress, as_model
from segdeploy.run.runtimes import runtime_for
from segdeploy.shell import command_line
from segdeploy.size import Size
from segdeploy.special_files import is_file

if TYPE_CHECKING:
    from segdeploy.run.session import Session

Tell = Callable[[str], None]


def silently(words: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class ChosenWay:
    """Says how a model is opened; None means the runtime's default."""

    path: Path | ModelAddress
    threads: int | None = None
    provider: str | None = None
    precision: str | None = None
    tuned: bool = False
    streams: int = 1  # images at once, each on `threads`

    @property
    def words(self) -> str:
        if isinstance(self.path, ModelAddress):
            return self.path.server
        threads = f"{self.threads} threads" if self.threads else None
        if self.streams > 1:
            threads = f"{self.streams} streams of {threads}"
        said = (self.path.name if self.tuned else None, self.provider or "cpu", self.precision, threads)
        return " ".join(filter(None, said if self.tuned else said[:3]))


def choose_opening(
    path: str | Path | ModelAddress,
    *,
    threads: int | None = None,
    provider: str | None = None,
    precision: str | None = None,
    as_exported: bool = False,
    several_callers: bool = False,
    tell: Tell = silently,
) -> ChosenWay:
    """Take the tuned choice that lies beside a graph, unless the way is asked for or another machine made it.

    One that was tuned for several images at once takes all its threads for one, unless it gets `several_callers`.
    """
    model = as_model(path)
    asked = ChosenWay(model, threads, provider, precision)
    if isinstance(model, ModelAddress):
        return asked
    if as_exported or (threads, provider, precision) != (None, None, None) or not is_file(model):
        return asked
    choice = read_tuned(model) if model.suffix == ".onnx" else None
    if choice is None:
        return asked
    name = model.name
    if why := why_not_taken(choice, model):
        again = command_line("segdeploy", "tune", model)
        tell(f"{name} was tuned {why}, so it runs as exported; tune it for what is here: {again}")
        return asked
    way = choice.way
    threads, streams, here = way.threads, way.streams, ""
    if threads is not None and streams > 1 and not several_callers:
        threads, streams, here = threads * streams, 1, ", all of them on one image here"
    tell(f"{name} runs as it was tuned: {way.words}{here}; --as-exported runs the graph itself")
    if choice.unsteady:
        again = command_line("segdeploy", "tune", model)
        tell(
            f"the processor was slowed down while {name} was tuned, so another way may be faster; when the machine is"
            f" cool and quiet: {again}"
        )
    path = model.with_name(way.model)
    return ChosenWay(path, threads, way.provider, way.precision, tuned=True, streams=streams)


def why_not_taken(choice: TunedChoice, path: Path) -> str | None:
    """Say why a choice is not taken; refuses one whose file is not the one that was measured."""
    model = path.with_name(choice.way.model)
    packages = runtime_for(model, choice.way.provider, choice.way.precision).packages
    why = choice.why_not_here(files.digest_of(path), this_machine(), versions_of(packages))
    if why is None and (not is_file(model) or files.digest_of(model) != choice.way.digest):
        again = command_line("segdeploy", "tune", path)
        raise GraphError(
            f"{path.name} was tuned to run {model.name}, which is gone or was changed since; tune again: {again},"
            " or say --as-exported"
        )
    return why


def open_session(
    path: str | Path | ModelAddress,
    *,
    threads: int | None = None,
    provider: str | None = None,
    card: ModelCard | str | PathLike[str] | None = None,
    shares_cores: bool = False,
    precision: str | None = None,
    as_exported: bool = False,
    size: Size | None = None,
    tell: Tell = silently,
) -> Session:
    """Open an .onnx in ONNX Runtime or OpenVINO, an .engine in TensorRT, or a triton:// address on its server.

    A graph that was tuned on this machine is opened so, unless `as_exported` is set, or one of the next three is given:
    `provider` is where an .onnx is computed: cpu (ONNX Runtime's, the default), openvino (on the CPU too), or ONNX
    Runtime's cuda or tensorrt; `threads` are the CPU's; `precision` is f32, bf16 (in OpenVINO, on a CPU that has it) or
    int8 (of a quantised graph), and those of fewer bits are compared with the graph first.

    `card` describes a graph that was not exported by segdeploy. On the CPU a faster copy of the graph runs, which gives
    the same answers. `shares_cores` is for streams, whose decoder and encoder need the processor too. Options that a
    runtime does not use are refused. A graph of several sizes takes each frame at the size that fits it, unless `size`
    is one of them.
    """
    chosen = choose_opening(
        path, threads=threads, provider=provider, precision=precision, as_exported=as_exported, tell=tell
    )
    return open_chosen(chosen, card=as_card(card), shares_cores=shares_cores, tell=tell, size=size)


def open_chosen(
    chosen: ChosenWay,
    *,
    card: ModelCard | None = None,
    shares_cores: bool = False,
    tell: Tell = silently,
    size: Size | None = None,
) -> Session:
    def opened_with(attention: str) -> Session:
        return opened.open_session(
            chosen.path,
            threads=chosen.threads,
            provider=chosen.provider,
            card=card,
            shares_cores=shares_cores,
            precision=chosen.precision,
            size=size,
            streams=chosen.streams,
            attention=attention,
        )

    path, precision = chosen.path, chosen.precision
    if precision is None or isinstance(path, ModelAddress):
        return opened_with("all")
    from segdeploy.prove.precision import PROVEN, ToProve

    if precision not in PROVEN:
        return opened_with("all")
    to_prove = ToProve(path, runtime_for(path, chosen.provider, precision), precision, card)
    session, proof = to_prove.proven(opened_with)
    tell(
        f"{path.name} runs in {precision} ({proof.words(to_prove.runtime)}):"
        f" {proof.agreement.pixel_agreement:.2%} of {proof.pixels:,} labels on made scenes equal to the graph's"
    )
    return session
