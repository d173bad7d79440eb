"""Lists the ways that this machine has to compute a graph, and says why it lacks the others."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segdeploy.errors import SegdeployError
from segdeploy.machine import MachineFacts
from segdeploy.prove.opening import ChosenWay
from segdeploy.run.runtimes import RUNTIMES, Runtime

NO_GPU = "there is no GPU that the driver shows"
# A graph's own precision, and what a CPU computes such a graph in.
OF_GRAPH = {"fp32": ("f32", "bf16"), "int8": ("int8",)}


@dataclass(frozen=True)
class Form:
    """Names a file of the network that is tuned, and the precision that it is in."""

    precision: str  # fp32 | fp16 | int8 | int8+fp16
    path: Path


@dataclass(frozen=True)
class Way:
    model: Path
    runtime: Runtime
    precision: str  # f32 | bf16 | int8 | fp16 …
    threads: int | None = None  # None: on a GPU

    @property
    def words(self) -> str:
        where = f"{self.precision} in {self.runtime.title}"
        if self.runtime.on_gpu:
            return f"{where} {self.runtime.where}"
        return f"{where} with {self.threads} thread{'' if self.threads == 1 else 's'}"

    @property
    def answers_as(self) -> tuple[Path, str | None, str]:
        """Name what its answers depend on: the number of threads changes none."""
        return self.model, self.runtime.provider, self.precision

    @property
    def opening(self) -> ChosenWay:
        asked = self.precision if self.precision in self.runtime.precisions else None
        return ChosenWay(self.model, self.threads, self.runtime.provider, asked, tuned=True)


@dataclass(frozen=True)
class LeftOut:
    """Names a way that was not measured, and why."""

    words: str
    why: str


def ways_here(forms: Sequence[Form], machine: MachineFacts) -> Iterator[Way | LeftOut]:
    """Yield each way to compute one network, of which these are the files; as exported comes first."""
    for runtime in RUNTIMES:
        fitting = [form for form in forms if form.path.suffix == runtime.takes]
        if not fitting:
            continue
        if why := why_absent(runtime, machine):
            yield LeftOut(runtime.words, why)
            continue
        for form in fitting:
            if runtime.on_gpu:
                yield Way(form.path, runtime, form.precision)
                continue
            for precision in OF_GRAPH.get(form.precision, ()):
                if precision not in runtime.precisions:
                    continue
                if why := why_not_computed(runtime, precision):
                    yield LeftOut(f"{precision} in {runtime.title}", why)
                    continue
                for threads in threads_of(machine.cores):
                    yield Way(form.path, runtime, precision, threads)


def why_absent(runtime: Runtime, machine: MachineFacts) -> str | None:
    """Say why a runtime computes nothing here; None where it does, or where only opening a session can tell."""
    if runtime.on_gpu and not machine.gpus:
        return NO_GPU
    if runtime.takes == ".engine":
        return None  # it was built here a moment ago, by one of two modules
    if importlib.util.find_spec(runtime.module) is None:
        return f"{runtime.packages[0]} is not installed: pip install 'segdeploy[{runtime.extra}]'"
    if runtime.on_gpu and runtime.module == "onnxruntime" and runtime.provider:
        from segdeploy.run.ort import demand_provider  # which loads CUDA's libraries

        try:
            demand_provider(runtime.provider)
        except SegdeployError as error:
            return str(error)
    return None


def why_not_computed(runtime: Runtime, precision: str) -> str | None:
    if runtime.provider != "openvino":
        return None
    from segdeploy.run.openvino import demand_computed

    try:
        demand_computed(precision)
    except SegdeployError as error:
        return str(error)
    return None


def threads_of(cores: int) -> list[int]:
    """List the numbers of threads worth measuring: all cores, and half of them, which a second core pair may slow."""
    return sorted({cores, max(cores // 2, 1)}, reverse=True)
