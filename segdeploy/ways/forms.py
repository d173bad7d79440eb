"""Makes the files that a network's ways need: the INT8 graph, and on a GPU the FP16 ones and an engine of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from segdeploy import files
from segdeploy.convert.build_engine import DeployRequest, build_proven
from segdeploy.convert.engine.request import EngineRequest
from segdeploy.convert.fp16 import write_fp16
from segdeploy.convert.int8.job import Request
from segdeploy.convert.int8.quantize import quantize
from segdeploy.errors import SegdeployError
from segdeploy.flavour import open_flavour
from segdeploy.graph.load import Graph, read_graph
from segdeploy.machine import MachineFacts
from segdeploy.model.engine import Profile
from segdeploy.model.record import matching_record, record_path
from segdeploy.ways.accuracy import JudgedFrames
from segdeploy.ways.request import TuneRequest
from segdeploy.ways.way import NO_GPU, Form, LeftOut

ENGINE = "TensorRT on the GPU"
# Images at once that an engine is tuned for, of a graph whose batch is open.
BATCHES = {"latency": (1,), "throughput": (1, 8)}


@dataclass
class FormMaker:
    """Makes the files of one network into the folder `made`; what cannot be made is left out, and said."""

    graph: Graph
    request: TuneRequest
    machine: MachineFacts
    made: Path
    progress: Callable[[str], None] = lambda step: None
    left_out: list[LeftOut] = field(default_factory=list)

    def forms(self) -> list[Form]:
        """List the graph first; without frames to compare on it stays alone."""
        forms, frames = [Form("fp32", self.graph.path)], self.request.frames
        if frames is None:
            uncompared = "bf16, int8 and what a GPU computes" if self.machine.gpus else "bf16 and int8"
            self.leave_out(uncompared, "no frames were given to compare them on: --images DIR")
            return forms
        forms += self.in_int8(frames)
        if self.machine.gpus:
            forms += [half for form in forms for half in self.in_fp16(form, frames)]
        return [*forms, *self.engines_of(forms)]

    def in_int8(self, frames: JudgedFrames) -> list[Form]:
        """Take the INT8 graph that lies there already, else make one of the frames."""
        for folder in (self.graph.path.parent, self.request.output):
            found = folder and quantised_in(folder, self.graph)
            if found:
                return [Form("int8", found)]
        dataset = self.request.calibration or frames.dataset
        request = Request(
            images=None if dataset else frames.folder,
            dataset=dataset,
            max_drop=self.request.max_drop,
            card=self.request.card,
        )
        return self.made_in(
            "int8", lambda: quantize(self.graph, request, output=self.made, progress=self.progress).path
        )

    def in_fp16(self, form: Form, frames: JudgedFrames) -> list[Form]:
        def written() -> Path:
            card = self.request.card
            return write_fp16(
                form.path, images=frames.folder, card=card, output=self.made, progress=self.progress
            ).path

        return self.made_in("fp16" if form.precision == "fp32" else f"{form.precision}+fp16", written)

    def engines_of(self, forms: list[Form]) -> list[Form]:
        if not self.machine.gpus:
            return self.leave_out(ENGINE, NO_GPU)
        try:
            open_flavour()
        except SegdeployError as error:
            return self.leave_out(ENGINE, str(error))
        batches = BATCHES[self.request.goal] if self.graph.signature.batch is None else (1,)
        return [engine for form in forms for batch in batches for engine in self.engine_of(form, batch)]

    def engine_of(self, form: Form, batch: int) -> list[Form]:
        """Build an engine that takes single images too, as every verb may give it one."""

        def built() -> Path:
            profile = Profile(1, batch, batch) if batch > 1 else None
            asked = EngineRequest("fp16" in form.precision, "int8" in form.precision, profile)
            graph = read_graph(form.path, self.request.card)
            return build_proven(graph, DeployRequest(asked), output=self.made).path

        return self.made_in(form.precision, built, where=ENGINE, batch=batch)

    def made_in(
        self, precision: str, make: Callable[[], Path], where: str = "", batch: int = 1
    ) -> list[Form]:
        words = f"{precision} in {where}" if where else precision
        words += f", {batch} at once" if batch > 1 else ""
        self.progress(f"making {words}")
        try:
            return [Form(precision, make(), batch)]
        except SegdeployError as error:
            return self.leave_out(words, str(error))

    def leave_out(self, words: str, why: str) -> list[Form]:
        self.left_out.append(LeftOut(words, why))
        return []


def quantised_in(folder: Path, graph: Graph) -> Path | None:
    """Find the INT8 graph that was made of this very graph."""
    path = folder / f"{graph.path.stem}.int8.onnx"
    if not path.is_file() or not record_path(path).is_file():
        return None
    record = matching_record(path, files.digest_of(path))
    key = record.calibration.key if record and record.calibration else None
    return path if key and key.get("graph") == graph.digest else None
