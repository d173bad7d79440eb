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
    batch: int = 1  # images at once that it is tuned for


@dataclass(frozen=True)
class Way:
    model: Path
    runtime: Runtime
    precision: str  # f32 | bf16 | int8 | fp16 …
    threads: int | None = None  # None: on a GPU
    streams: int = 1  # images at once, each on `threads`
    batch: int = 1  # images in one call

    @property
    def words(self) -> str:
        where = f"{self.precision} in {self.runtime.title}"
        if self.runtime.on_gpu:
            return f"{where} {self.runtime.where}" + (f", {self.batch} at once" if self.batch > 1 else "")
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{where} with {f'{self.streams} streams of ' if self.streams > 1 else ''}{threads}"

    @property
    def answers_as(self) -> tuple[Path, str | None, str]:
        """Name what its answers depend on: the number of threads changes none."""
        return self.model, self.runtime.provider, self.precision

    @property
    def opening(self) -> ChosenWay:
        asked = self.precision if self.precision in self.runtime.precisions else None
        return ChosenWay(
            self.model, self.threads, self.runtime.provider, asked, tuned=True, streams=self.streams
        )


@dataclass(frozen=True)
class LeftOut:
    """Names a way that was not measured, and why."""

    words: str
    why: str


def ways_here(forms: Sequence[Form], machine: MachineFacts, goal: str = "latency") -> Iterator[Way | LeftOut]:
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
                yield Way(form.path, runtime, form.precision, batch=form.batch)
                continue
            for precision in OF_GRAPH.get(form.precision, ()):
                if precision not in runtime.precisions:
                    continue
                if why := why_not_computed(runtime, precision):
                    yield LeftOut(f"{precision} in {runtime.title}", why)
                    continue
                for threads, streams in SHARES[goal](machine.cores):
                    yield Way(form.path, runtime, precision, threads, streams)


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


def for_one_image(cores: int) -> list[tuple[int, int]]:
    """List the threads worth measuring: all cores, and half of them, as the other half may share what they have."""
    return [(threads, 1) for threads in sorted({cores, max(cores // 2, 1)}, reverse=True)]


def for_many_images(cores: int) -> list[tuple[int, int]]:
    """List the threads and streams worth measuring: all cores on one image, on two, and a core on each."""
    return list(dict.fromkeys((max(cores // streams, 1), streams) for streams in (1, min(2, cores), cores)))


SHARES = {"latency": for_one_image, "throughput": for_many_images}
