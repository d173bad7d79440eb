"""Compares models with the first of them, in turn: A B A B.

What slows the machine for a while slows both runs of a pair, so the pair's ratio holds where the times themselves do
not. A turn has as many queries as fill TURN_MS: a single short one would measure waking up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from segdeploy.assess.bench.measure import demand_batches, pictures
from segdeploy.assess.bench.models import Opened
from segdeploy.assess.bench.modes import BenchPlan
from segdeploy.assess.bench.timing_host import lanes_of
from segdeploy.errors import RequestError
from segdeploy.run.timing import Lane

TURN_MS = 20.0
LEAST_ROUNDS = 10


@dataclass(frozen=True)
class Against:
    """Holds one model's times and its ratio to the first."""

    model: str
    runtime: str
    queries_per_turn: int
    median_ms: float  # of a query
    ratio: float  # median of the pairs' ratios: how many times as fast as the first
    ratio_low: float  # their quartiles
    ratio_high: float


@dataclass(frozen=True)
class Comparison:
    batch: int
    rounds: int
    rows: tuple[Against, ...]  # the first row has the ratio 1
    ran: dict[str, dict[str, Any]]
    unlike: tuple[str, ...]  # differences between the models that make the comparison unfair
    stopped: bool

    def ran_alike(self) -> list[tuple[dict[str, Any], list[str]]]:
        """Group the models by the way they ran."""
        ways: list[tuple[dict[str, Any], list[str]]] = []
        for name, ran in self.ran.items():
            names = next((names for way, names in ways if way == ran), None)
            if names is None:
                ways.append((ran, [name]))
            else:
                names.append(name)
        return ways


def demand_alike(models: Sequence[Opened], allow_unlike: bool) -> tuple[str, ...]:
    """Refuse models that do different work; with `allow_unlike` return their differences instead."""
    differences = []
    for what, look in ALIKE.items():
        found = {model.name: look(model) for model in models}
        if len(set(found.values())) > 1:
            differences.append(f"{what} ({', '.join(f'{name}: {value}' for name, value in found.items())})")
    if differences and not allow_unlike:
        raise RequestError(
            f"the models differ in {' and in '.join(differences)}, so the faster one may just do less;"
            " compare models that do the same, or say --allow-unlike"
        )
    return tuple(differences)


ALIKE: dict[str, Callable[[Opened], str]] = {
    "size": lambda model: str(model.session.signature.size),
    "classes": lambda model: str(model.session.signature.classes),
    "what they answer": lambda model: "logits" if model.session.signature.interface == "logits" else "labels",
}


def compare(
    models: Sequence[Opened], batch: int, plan: BenchPlan, *, allow_unlike: bool = False
) -> Comparison:
    """Run the models in turn for `plan.duration_s` each; a stopped comparison counts the whole rounds so far."""
    unlike = demand_alike(models, allow_unlike)
    for model in models:
        demand_batches(model.session, [batch])
    names = told_apart(models)
    with ExitStack() as opened:
        lanes: list[Lane] = []
        ran = {}
        for name, model in zip(names, models, strict=True):
            entered = opened.enter_context(
                lanes_of(model.session, pictures(model.session, batch), plan.modes)
            )
            lanes.append(entered.lanes[0])
            ran[name] = entered.ran
        rounds: list[list[float]] = []
        stopped = False
        try:
            queries = [queries_per_turn(lane, plan.warm_up_ms) for lane in lanes]
            end = time.perf_counter() + plan.duration_s * len(models)
            while len(rounds) < LEAST_ROUNDS or time.perf_counter() < end:
                rounds.append([turn_ms(lane, count) for lane, count in zip(lanes, queries, strict=True)])
        except KeyboardInterrupt:
            if not rounds:
                raise
            stopped = True
    return Comparison(
        batch, len(rounds), summarise_rounds(rounds, names, models, queries), ran, unlike, stopped
    )


def summarise_rounds(
    rounds: Sequence[Sequence[float]],
    names: Sequence[str],
    models: Sequence[Opened],
    queries: Sequence[int],
) -> tuple[Against, ...]:
    times = np.asarray(rounds)  # rounds×models, ms of a query
    rows = []
    for place, (name, model) in enumerate(zip(names, models, strict=True)):
        ratios = times[:, 0] / times[:, place]
        low, middle, high = (float(np.quantile(ratios, share)) for share in (0.25, 0.5, 0.75))
        median_ms = float(np.median(times[:, place]))
        rows.append(Against(name, model.runtime, queries[place], median_ms, middle, low, high))
    return tuple(rows)


def queries_per_turn(lane: Lane, warm_up_ms: float) -> int:
    """Warm up, and compute how many queries fill a turn from the shortest one seen."""
    shortest = turn_ms(lane, 1)
    end = time.perf_counter() + warm_up_ms / 1e3
    while time.perf_counter() < end:
        shortest = min(shortest, turn_ms(lane, 1))
    return max(1, math.ceil(TURN_MS / shortest))


def turn_ms(lane: Lane, count: int) -> float:
    """Give the mean time of a query, of `count` in a row with as many under way as the lane allows."""
    start = time.perf_counter()
    under_way = 0
    for _ in range(count):
        lane.start()
        under_way += 1
        if under_way == lane.depth:
            lane.finish()
            under_way -= 1
    for _ in range(under_way):
        lane.finish()
    return (time.perf_counter() - start) * 1e3 / count


def told_apart(models: Sequence[Opened]) -> list[str]:
    """Give the models' names, numbered where two are equal."""
    names = [model.name for model in models]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def markdown_lines(comparison: Comparison) -> list[str]:
    lines = [
        f"| batch {comparison.batch}, {comparison.rounds} rounds in turn | runtime | median ms | images/s"
        " | times as fast (quartiles) |",
        "|---|---|--:|--:|--:|",
    ]
    for row in comparison.rows:
        first = row is comparison.rows[0]
        ratio = "1" if first else f"{row.ratio:.2f} ({row.ratio_low:.2f}–{row.ratio_high:.2f})"
        images_per_s = comparison.batch / row.median_ms * 1e3
        lines.append(f"| {row.model} | {row.runtime} | {row.median_ms:.2f} | {images_per_s:.1f} | {ratio} |")
    return lines
