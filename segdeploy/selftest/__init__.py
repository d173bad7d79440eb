"""Tries small graphs of every family, interface and precision on each runtime that is here, and says which agree.

It is how a person with a device that was not here tells what happens there: the result is one JSON without a name or a
path of theirs (selftest/README.md). Nothing is loaded from elsewhere and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic

import numpy as np

from segdeploy.convert.engine.build import build_from
from segdeploy.convert.engine.request import EngineRequest
from segdeploy.errors import SegdeployError
from segdeploy.flavour import NAMES, is_installed, open_flavour
from segdeploy.run.cuda import why_no_gpu
from segdeploy.run.runtimes import RUNTIMES
from segdeploy.run.session import open_session, segment
from segdeploy.selftest.pack import Pack, Trial, unpacked

SCHEMA = 1
AGREES, DIFFERS, REFUSED, NOT_RUN = "agrees", "differs", "refused", "not run"
# The least share of equal labels. Weights here are random, so that classes lie closer together than trained ones do:
# OpenVINO, which fuses and rounds in its own order, gives 79 % of an INT8 graph's.
LEAST = {"fp32": 0.99, "fp16": 0.95, "int8": 0.7}
LONGEST_WORDS = 400

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """Says what one graph did on one runtime."""

    graph: str
    runtime: str
    result: str  # agrees | differs | refused | not run
    agreement: float | None = None  # the share of equal labels
    seconds: float | None = None  # with opening it, and for an engine with building it
    milliseconds: float | None = None  # of one frame, the second time
    why: str = ""


@dataclass(frozen=True)
class Result:
    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def differing(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.result == DIFFERS]

    def counted(self, runtime: str) -> dict[str, int]:
        of_it = [one.result for one in self.outcomes if one.runtime == runtime]
        return {result: of_it.count(result) for result in (AGREES, DIFFERS, REFUSED, NOT_RUN)}

    @property
    def runtimes(self) -> list[str]:
        return list(dict.fromkeys(one.runtime for one in self.outcomes))


def run_selftest(seconds: float, progress: Progress = lambda step: None) -> Result:
    """Try each graph on each runtime, until `seconds` have passed; what comes after that is named as not run."""
    started = monotonic()
    with unpacked() as pack:
        outcomes = []
        for runtime, attempt in attempts().items():
            for trial in pack.trials:
                if monotonic() - started > seconds:
                    outcomes.append(Outcome(trial.name, runtime, NOT_RUN, why=f"{seconds:g} s had passed"))
                    continue
                progress(f"{runtime}: {trial.name}")
                outcomes.append(outcome_of(trial, runtime, pack, attempt))
    return Result(tuple(outcomes), round(monotonic() - started, 1))


Make = Callable[[Path], Path]  # gives what is opened: the graph, or the engine that is built of it


@dataclass(frozen=True)
class Attempt:
    """Describes one way to run a graph that this machine has."""

    provider: str | None  # as in --provider
    make: Make


def attempts() -> dict[str, Attempt]:
    """Map the runtimes that are here by name; engines are built and run where there is a GPU."""
    found = {
        row.provider: Attempt(row.provider, lambda graph: graph)
        for row in RUNTIMES
        if row.provider is not None and any(map(has_package, row.packages))
    }
    engines = filter(is_installed, NAMES if why_no_gpu() is None else ())
    return found | {f"{name} engine": Attempt(None, partial(built_engine, runtime=name)) for name in engines}


def has_package(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def built_engine(graph: Path, runtime: str) -> Path:
    target = graph.with_suffix(f".{runtime}.engine")
    return build_from(graph, EngineRequest(), target, flavour=open_flavour(runtime)).path


def outcome_of(trial: Trial, runtime: str, pack: Pack, attempt: Attempt) -> Outcome:
    frame, expected = pack.frames[trial.size], pack.labels[trial.name]
    started = monotonic()
    try:
        with open_session(attempt.make(pack.graph(trial)), provider=attempt.provider) as session:
            labels = segment(session, frame, kernel="linear").labels
            opened = monotonic()
            segment(session, frame, kernel="linear")
            again = monotonic()
    except SegdeployError as error:
        return Outcome(trial.name, runtime, REFUSED, why=str(error)[:LONGEST_WORDS])
    except Exception as error:  # noqa: BLE001 - of any runtime: what it is, is the result
        return Outcome(trial.name, runtime, REFUSED, why=f"{type(error).__name__}: {error}"[:LONGEST_WORDS])
    agreement = float(np.mean(labels == expected))
    result = AGREES if agreement >= LEAST[trial.precision] else DIFFERS
    return Outcome(
        trial.name,
        runtime,
        result,
        round(agreement, 6),
        round(opened - started, 2),
        round(1000 * (again - opened), 2),
    )
