"""Checks a graph and a request for an engine against each other, before any step that takes time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segdeploy.convert.engine.known_bugs import demand_plugins, sampling_of
from segdeploy.convert.engine.network import open_builder, profile_of
from segdeploy.convert.engine.progress import Progress
from segdeploy.convert.engine.request import EngineRequest
from segdeploy.convert.engine.settings import demand_core, demand_possible
from segdeploy.errors import EngineError, GraphError, RequestError
from segdeploy.flavour import Flavour
from segdeploy.graph.load import Graph
from segdeploy.model.engine import Profile, Sampling
from segdeploy.prove import verify
from segdeploy.run.tensorrt.log import listening


@dataclass(frozen=True)
class EngineJob:
    """Describes one build, after every check that needs no builder has passed."""

    graph: Graph
    request: EngineRequest
    flavour: Flavour
    profile: Profile
    command: str
    progress: Progress
    sampling: Sampling
    images: tuple[Path, ...] = ()  # the user's own, on which the engine is compared

    @property
    def typed(self) -> bool:
        """Tell whether the graph alone sets the types; with a calibrator, or a DLA up to TensorRT 10, TensorRT does."""
        if self.flavour.typed_only:
            return True
        return self.flavour.can_be_typed and self.request.calibration is None and self.request.dla is None

    @property
    def precision(self) -> str:
        if self.typed:
            return str(self.graph.precision)
        return str(self.graph.precision.also(int8=self.request.int8, fp16=self.request.fp16))

    def path_in(self, output: Path) -> Path:
        return output if output.suffix == ".engine" else output / self.name

    @property
    def name(self) -> str:
        """Name the file by the requested precision only, not by how that is reached."""
        there = self.graph.precision
        chosen = "".join(
            f".{name}"
            for name, asked, written in (
                ("int8", self.request.int8, there.int8),
                ("fp16", self.request.fp16, there.fp16),
            )
            if asked and not written
        )
        dla = "" if self.request.dla is None else f".dla{self.request.dla}"
        return self.graph.name.removesuffix(".onnx") + chosen + dla + self.profile.label + self.flavour.suffix


def demand_gpu(flavour: Flavour) -> None:
    """Demand a GPU where this TensorRT needs one: it builds for the GPU that is here, and we compare on it."""
    reason = None if flavour.builds_without_gpu else verify.why_not(flavour)
    if reason is not None:
        raise EngineError(
            f"{flavour} builds an engine on the GPU that the engine is for, and here is {reason}; run this on the"
            " target, or build with --runtime tensorrt-rtx, which needs no GPU"
        )


def job_of(
    graph: Graph,
    request: EngineRequest,
    flavour: Flavour,
    command: str,
    progress: Progress,
    images: tuple[Path, ...] = (),
) -> EngineJob:
    demand_possible(flavour, request)
    demand_gpu(flavour)
    demand_plugins(flavour, request, graph)
    sampling = sampling_of(flavour, request, graph)
    calibration = request.calibration
    if calibration is not None and graph.precision.is_typed:
        raise GraphError(
            f"{graph.name} is {graph.precision}; give TensorRT's calibrator the FP32 graph that it was made from"
        )
    profile = profile_of(graph, request.profile)
    if calibration is not None and calibration.cache is None and len(calibration.images) < profile.opt:
        raise RequestError(
            f"{len(calibration.images)} images are fewer than one batch of {profile.opt}; give more, or --batch 1"
        )
    if request.dla is not None:
        with listening(flavour) as heard:
            demand_core(open_builder(flavour, graph, heard), request.dla)
    return EngineJob(graph, request, flavour, profile, command, progress, sampling, images)
