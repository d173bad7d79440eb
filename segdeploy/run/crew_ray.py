"""Runs workers as actors of a Ray cluster, each of which opens its model once.

Plain actors, and not Ray Data: that resumes by blocks, of which a kill takes a whole one; it filters what is done only
behind a reader of its own, and doubles it silently behind others; and its filter is an actor too, which waits for ever
for a processor that a segmenter holds. What is done is known here by the file, so Ray only has to place workers and to
say that one is gone. Paths and counts travel, pixels do not, so the object store stays empty.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from segdeploy.errors import MissingExtra, RequestError
from segdeploy.run.crew import GONE, Answer, Order, Task, error_in_words, new_name
from segdeploy.run.hands import AHEAD

LOCAL = "local"
STORE_BYTES = 80 << 20  # the least that Ray takes
REACHED_S = 10.0
TRIES = 3  # to start Ray on a busy machine, for which it waits thirty seconds


@dataclass(frozen=True)
class Share:
    """Says what one worker takes of a machine; Ray starts as many there as fit."""

    cpus: int
    gpus: int = 0


class ActorWorker:
    """Is a worker in a process of Ray's; whatever goes wrong is an answer."""

    def __init__(self, order: Order, name: str) -> None:
        self._order, self._name = order, name

    def open(self) -> list[Answer]:
        try:
            self._worker = self._order.opened(self._name)
        except Exception as error:  # noqa: BLE001 # told to whoever hands out, who raises it
            return [error_in_words(error)]
        return [{"ready": self._worker.batch}]

    def work(self, tasks: Sequence[Task]) -> list[Answer]:
        answers: list[Answer] = []
        try:
            answers.extend(self._worker.work(tasks))
        except Exception as error:  # noqa: BLE001 # see above
            answers.append(error_in_words(error))
        return answers

    def where(self) -> tuple[str, int]:
        """Give the machine and the process."""
        return socket.gethostname(), os.getpid()


class RayCrew:
    def __init__(self, order: Order, address: str, share: Share, count: int | None) -> None:
        """Join the cluster, or start Ray on this machine; `count` None: as many workers as fit."""
        self._order, self._ray = order, load_ray()
        start(self._ray, address, share, count)
        try:
            self.count = self._fitting(share, count, address)
        except BaseException:
            self._ray.shutdown()
            raise
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}  # what was asked for, oldest first, and of whom
        self._kind = self._ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0)(ActorWorker)

    def hire(self, worker: int) -> str:
        name = new_name()
        self._actors[worker] = self._kind.remote(self._order, name)
        self._pending[self._actors[worker].open.remote()] = worker
        return name

    def give(self, worker: int, tasks: Sequence[Task]) -> None:
        if worker in self._actors:  # else it is told already that it is gone
            self._pending[self._actors[worker].work.remote(list(tasks))] = worker

    def wait(self) -> list[tuple[int, Answer]]:
        """Give the next answers of a worker in the order of its tasks; what is ready may be told in another."""
        ready, _ = self._ray.wait(list(self._pending), num_returns=1)
        worker = self._pending[ready[0]]
        oldest = next(asked for asked, of in self._pending.items() if of == worker)
        del self._pending[oldest]
        try:
            return [(worker, answer) for answer in self._ray.get(oldest)]
        except self._ray.exceptions.RayActorError as error:
            self._dismiss(worker)
            return [(worker, {GONE: type(error).__name__})]

    def close(self) -> None:
        for worker in list(self._actors):
            self._dismiss(worker)
        self._ray.shutdown()

    def _dismiss(self, worker: int) -> None:
        with suppress(Exception):  # it is gone already
            self._ray.kill(self._actors[worker], no_restart=True)
        del self._actors[worker]
        self._pending = {asked: of for asked, of in self._pending.items() if of != worker}

    def _fitting(self, share: Share, count: int | None, address: str) -> int:
        """Count the workers that the cluster's machines have room for; refuses more, which would be waited for."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        fit = sum(
            int(
                min(
                    node.get("CPU", 0) / share.cpus,
                    *[node.get("GPU", 0) / share.gpus] * bool(share.gpus),
                    1e6,
                )
            )
            if share.gpus
            else int(node.get("CPU", 0) / share.cpus)
            for node in nodes
        )
        if fit < (count or 1):
            asked = f"{share.cpus} CPUs" + (f" and {share.gpus} GPU" if share.gpus else "")
            raise RequestError(
                f"the cluster at {address} has {len(nodes)} machines, with room for {fit} workers of {asked} each, and"
                f" {count or 1} were asked for; give fewer --workers or --threads"
            )
        return count or fit


def load_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MissingExtra("ray", "ray", "--ray") from error
    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns of its own settings, as of its token
    return ray


def demand_cluster(address: str) -> None:
    """Refuse an address at which nothing listens: Ray would try for two minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?([^\]]+?)\]?:(\d{1,5})", address)
    if found is None:  # this machine, or `auto`, which Ray looks for
        return
    try:
        socket.create_connection((found[1], int(found[2])), REACHED_S).close()
    except (OSError, OverflowError) as error:
        raise RequestError(not_joined(address, str(error))) from error


def not_joined(address: str, words: str) -> str:
    return (
        f"no Ray cluster could be joined at {address}: {words}; start one with: ray start --head, and say"
        f" --ray HOST:6379, or --ray {LOCAL} for this machine alone"
    )


def start(ray: Any, address: str, share: Share, count: int | None) -> None:
    options = {"log_to_driver": False, "configure_logging": False}
    if address != LOCAL:
        demand_cluster(address)
        try:
            ray.init(address, **options)
        except Exception as error:  # Ray's have no common class
            raise RequestError(not_joined(address, " ".join(str(error).split()))) from error
        return
    workers = count or max(1, (os.cpu_count() or 1) // share.cpus)
    unbind_memory()
    for left in reversed(range(TRIES)):
        try:
            ray.init(
                num_cpus=workers * share.cpus,
                num_gpus=workers if share.gpus else 0,
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                **options,
            )
            return
        except Exception as error:
            ray.shutdown()
            if not left:
                raise RequestError(
                    f"Ray cannot be started on this machine: {' '.join(str(error).split())}"
                ) from error
            time.sleep(AHEAD)


def unbind_memory() -> None:
    """Let Ray's own processes map what they like: they reserve far more than they use."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
