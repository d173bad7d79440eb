"""Hands tasks out to a crew, so that each worker has one handful to work on and one more, whoever dies meanwhile."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from segdeploy.errors import EngineError
from segdeploy.run.crew import GONE, Answer, Crew, Task, error_told

HANDFUL = 4  # tasks that a worker is handed at once, where it takes no larger batch
AHEAD = 2  # handfuls that a worker has
DEATHS = 3  # of workers, one after the other, before any was ready

Done = Callable[[str], Mapping[str, Answer]]


class Hands:
    """Yields an answer for each task; `work` may be called again, with the same workers.

    A worker that dies may have done more than it could say: `done_by` gives what one of this name did, by key. The rest
    is handed out again one by one. A task on which two workers died alone is given up, with a reason.
    """

    def __init__(self, crew: Crew, done_by: Done = lambda name: {}, handful: int = HANDFUL) -> None:
        self._crew, self._done_by, self._handful = crew, done_by, handful
        self._names: dict[int, str] = {}  # of the workers that live
        self._ready: set[int] = set()
        self._batch = 1
        self._given: dict[int, deque[dict[str, Task]]] = {worker: deque() for worker in range(crew.count)}
        self._alone: deque[Task] = deque()
        self._died: Counter[str] = Counter()
        self._unready = 0  # workers that died one after the other before they were ready

    def work(self, todo: Iterator[Task]) -> Iterator[tuple[Task, Answer]]:
        self._died.clear()
        while True:
            self._hand_out(todo)
            if not any(self._given.values()):
                return
            for worker, answer in self._crew.wait():
                yield from self._take(worker, answer)

    def _hand_out(self, todo: Iterator[Task]) -> None:
        for _ in range(AHEAD):
            for worker, given in self._given.items():
                if len(given) >= AHEAD:
                    continue
                some = (
                    [self._alone.popleft()]
                    if self._alone
                    else list(islice(todo, max(self._handful, self._batch)))
                )
                if not some:
                    return
                if worker not in self._names:
                    self._names[worker] = self._crew.hire(worker)
                given.append({task[0]: task for task in some})
                self._crew.give(worker, some)

    def _take(self, worker: int, answer: Answer) -> Iterator[tuple[Task, Answer]]:
        if "fatal" in answer:
            raise error_told(answer)
        if "ready" in answer:
            self._unready, self._batch = 0, answer["ready"]
            self._ready.add(worker)
        elif GONE in answer:
            yield from self._bury(worker, answer[GONE])
        else:
            given = self._given[worker]
            yield given[0].pop(answer["key"]), answer
            if not given[0]:
                given.popleft()

    def _bury(self, worker: int, how: str) -> Iterator[tuple[Task, Answer]]:
        was_ready = worker in self._ready
        if not was_ready:
            self._unready += 1
            if self._unready == DEATHS:
                raise EngineError(
                    f"{DEATHS} workers ended one after the other before they had opened the model ({how}); see that it"
                    " runs here, and that there is memory for several: segdeploy bench, --workers 1"
                )
        self._ready.discard(worker)
        done = self._done_by(self._names.pop(worker))
        for place, handful in enumerate(self._given[worker]):
            lone = was_ready and place == 0 and len(handful) == 1
            for key, task in handful.items():
                if key in done:
                    yield task, done[key]
                    continue
                self._died[key] += lone
                if self._died[key] > 1:
                    yield (
                        task,
                        {"key": key, "reason": f"it ended the process that worked on it ({how}), twice"},
                    )
                else:
                    self._alone.append(task)
        self._given[worker].clear()
