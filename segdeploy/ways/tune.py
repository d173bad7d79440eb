"""Tunes a graph for this machine: every way is measured and compared with the graph, and the best one is kept.

Nothing is kept until all is measured: what is made on the way lies in a folder of its own, and of it only the chosen
file comes to lie beside the graph.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from segdeploy import files
from segdeploy.assess.bench.meter import Sensors
from segdeploy.errors import GraphError, RequestError, SegdeployError
from segdeploy.graph.load import Graph, read_graph
from segdeploy.machine import MachineFacts, this_machine, versions_of
from segdeploy.model.record import record_path
from segdeploy.model.tuned import TunedChoice, TunedWay
from segdeploy.prove.opening import open_chosen
from segdeploy.run.ort import OrtSession
from segdeploy.run.session import Session
from segdeploy.scenes import make_scene
from segdeploy.ways.accuracy import JudgedFrames, Referee, WayCost
from segdeploy.ways.choice import Measured, best_line, best_of, verdict_of
from segdeploy.ways.forms import FormMaker
from segdeploy.ways.request import TuneRequest
from segdeploy.ways.speed import measure_in_turn
from segdeploy.ways.steady import Yardstick
from segdeploy.ways.way import Form, LeftOut, Way, ways_here

NO_COST = WayCost(0.0, None, 1.0, None)


@dataclass(frozen=True)
class Tuned:
    """Holds the choice, and all that was measured for it."""

    choice: TunedChoice
    best: Measured
    measured: tuple[Measured, ...]  # the graph as exported first
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]
    unit: str
    compared_on: int  # frames

    def __str__(self) -> str:
        return self.choice.verdict

    @property
    def line(self) -> list[Measured]:
        return best_line(self.measured)

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": "tune",
            "choice": asdict(self.choice),
            "loss_in": self.unit,
            "compared_on": self.compared_on,
            "ways": [
                {
                    "words": one.way.words,
                    "model": one.way.model.name,
                    "provider": one.way.runtime.provider,
                    "precision": one.way.precision,
                    "threads": one.way.threads,
                    "streams": one.way.streams,
                    "batch": one.way.batch,
                    "speed": asdict(one.speed),
                    "cost": asdict(one.cost),
                    "on_the_line": one in self.line,
                }
                for one in self.measured
            ],
            "left_out": [asdict(one) for one in self.left_out],
            "warnings": list(self.warnings),
        }


def tune(
    request: TuneRequest,
    *,
    sensors: Sensors | None = None,
    yardstick: Yardstick | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Tuned:
    if request.max_drop is not None and request.max_drop < 0:
        raise RequestError(f"a loss of {request.max_drop:g} is less than nothing; expected 0 or more")
    graph = read_graph(request.model, request.card)
    demand_tunable(graph)
    files.make_folder(graph.path.parent)  # the choice will lie there
    machine = this_machine()
    with TemporaryDirectory(prefix="segdeploy-tune-") as made, ExitStack() as opened:
        maker = FormMaker(graph, request, machine, Path(made), progress)
        forms = maker.forms()
        sessions, refused = open_ways(forms, machine, request, opened, progress)
        costs = costs_of(sessions, graph, request, progress)
        frame = frame_for(graph, request.frames)
        speeds, clock = measure_in_turn(
            sessions,
            frame,
            goal=request.goal,
            seconds=request.seconds,
            sensors=sensors,
            yardstick=yardstick,
            progress=progress,
        )
        measured = tuple(
            Measured(way, speed, cost) for (way, _), speed, cost in zip(sessions, speeds, costs, strict=True)
        )
        best = best_of(measured, request.limit)
        choice = choice_of(graph, request, machine, measured, best, clock.unsteady)
        warnings = clock.warnings
        if (
            request.frames is not None
            and any("int8" in form.precision for form in forms)
            and request.calibration is None
        ):
            warnings.append(
                "int8 may have been calibrated on frames that it is compared on, which flatters it"
            )
        frames = len(request.frames) if request.frames else 0
        done = Tuned(
            choice, best, measured, (*maker.left_out, *refused), tuple(warnings), request.unit, frames
        )
        keep_choice(done, graph.path, Path(made), request.output)
    return done


def demand_tunable(graph: Graph) -> None:
    """Refuse a graph that is not the FP32 one, from which the others are made, or whose size is open."""
    if graph.precision.is_typed:
        raise RequestError(
            f"{graph.name} is {graph.precision}; tune the FP32 graph that it was made from, which is what every way is"
            " compared with"
        )
    sides = [side for tensor in (graph.signature.input, graph.signature.output) for side in tensor.shape[1:]]
    if None in sides:
        raise GraphError(
            f"{graph.name} has open sides, and each size has a best way of its own; adopt or export it with --size HxW"
        )


def open_ways(
    forms: list[Form],
    machine: MachineFacts,
    request: TuneRequest,
    opened: ExitStack,
    progress: Callable[[str], None],
) -> tuple[list[tuple[Way, Session]], list[LeftOut]]:
    """Open a session for each way; one that cannot be opened, or disagrees with its graph, is left out and said."""
    sessions: list[tuple[Way, Session]] = []
    left_out: list[LeftOut] = []
    for found in ways_here(forms, machine, request.goal):
        if isinstance(found, LeftOut):
            left_out.append(found)
            continue
        if found.precision != "f32" and request.frames is None:
            continue  # which was said
        progress(f"opening {found.words}")
        try:
            session = opened.enter_context(open_chosen(found.opening, card=request.card))
        except SegdeployError as error:
            left_out.append(LeftOut(found.words, str(error)))
            continue
        sessions.append((found, session))
    if not sessions:
        raise RequestError(
            f"nothing here computes {request.model.name}: {'; '.join(f'{one.words}: {one.why}' for one in left_out)}"
        )
    return sessions, left_out


def costs_of(
    sessions: list[tuple[Way, Session]], graph: Graph, request: TuneRequest, progress: Callable[[str], None]
) -> list[WayCost]:
    """Compare each way once, whatever its threads; without frames all are in the graph's own precision."""
    if request.frames is None:
        return [NO_COST for _ in sessions]
    with OrtSession(graph.path, card=request.card) as itself:  # the file, not a CPU's copy of it
        referee = Referee(itself, request.frames, progress)
    known: dict[Any, WayCost] = {}
    for way, session in sessions:
        if way.answers_as not in known:
            known[way.answers_as] = referee.cost(session, way.words)
    return [known[way.answers_as] for way, _ in sessions]


def frame_for(graph: Graph, frames: JudgedFrames | None) -> Any:
    if frames is not None:
        return frames.read(0)[0]
    size = graph.signature.size
    return make_scene(0, size.height, size.width).image


def choice_of(
    graph: Graph,
    request: TuneRequest,
    machine: MachineFacts,
    measured: tuple[Measured, ...],
    best: Measured,
    unsteady: bool,
) -> TunedChoice:
    opening = best.way.opening
    return TunedChoice(
        graph=graph.name,
        digest=files.digest_of(graph.path),
        machine=machine,
        versions=versions_of(best.way.runtime.packages),
        way=TunedWay(
            best.way.model.name,
            files.digest_of(best.way.model),
            best.way.words,
            opening.provider,
            opening.precision,
            opening.threads,
            opening.streams,
        ),
        goal=request.goal,
        verdict=verdict_of(measured, best, request.limit, request.unit),
        unsteady=unsteady,
    )


def keep_choice(done: Tuned, graph: Path, made: Path, output: Path | None) -> None:
    """Write the choice, and the chosen file where it was made here; with an output folder also all that was made."""
    if output is not None:
        files.make_folder(output)
        for one in sorted(made.iterdir()):
            copy_whole([one], output)
        text = json.dumps(done.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        files.write_text(output / "tuned.json", text)
    chosen = done.best.way.model
    if chosen.parent != graph.parent:
        copy_whole([chosen, record_path(chosen)], graph.parent)
    done.choice.write(graph.parent)


def copy_whole(sources: list[Path], folder: Path) -> None:
    """Copy files that belong together, all or none."""
    with files.replacing_together(*(folder / one.name for one in sources)) as parts:
        for source, part in zip(sources, parts, strict=True):
            shutil.copyfile(source, part)
