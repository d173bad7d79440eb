"""What is to be built: the graph, the request, and what can be refused of the two before anything takes time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, external_data_helper

from segdeploy import files
from segdeploy.convert.engine.known_bugs import Sampling, demand_plugins, sampling_of
from segdeploy.convert.engine.network import open_builder, profile_of
from segdeploy.convert.engine.progress import Progress
from segdeploy.convert.engine.request import EngineRequest, Profile
from segdeploy.convert.engine.settings import demand_core, demand_possible
from segdeploy.errors import EngineError, GraphError, RequestError
from segdeploy.flavour import Flavour
from segdeploy.graph.plugins import runnable
from segdeploy.graph.precision import Precision, read_precision
from segdeploy.model.card import read_card
from segdeploy.model.signature import Signature
from segdeploy.prove import verify
from segdeploy.run.session import open_session
from segdeploy.run.tensorrt.log import listening


@dataclass(frozen=True)
class Job:
    graph: Path
    digest: str
    model: ModelProto
    signature: Signature
    written: Precision
    request: EngineRequest
    flavour: Flavour
    profile: Profile
    command: str
    progress: Progress
    sampling: Sampling
    images: tuple[Path, ...] = ()  # of the user's: what the engine is compared on

    @property
    def typed(self) -> bool:
        """Precision is in the graph alone; a calibrator, and a DLA up to TensorRT 10, want TensorRT to choose."""
        if self.flavour.typed_only:
            return True
        return self.flavour.can_be_typed and self.request.calibration is None and self.request.dla is None

    @property
    def precision(self) -> str:
        if self.typed:
            return str(self.written)
        return str(self.written.also(int8=self.request.int8, fp16=self.request.fp16))

    def path_in(self, output: Path) -> Path:
        return output if output.suffix == ".engine" else output / self.name

    @property
    def name(self) -> str:
        """The same whether the precision that was asked for is in the graph, will be, or is a flag of the builder."""
        chosen = "".join(
            f".{name}"
            for name, asked, there in (
                ("int8", self.request.int8, self.written.int8),
                ("fp16", self.request.fp16, self.written.fp16),
            )
            if asked and not there
        )
        dla = "" if self.request.dla is None else f".dla{self.request.dla}"
        return self.graph.name.removesuffix(".onnx") + chosen + dla + self.profile.label + self.flavour.suffix


def demand_gpu(flavour: Flavour) -> None:
    """TensorRT builds on the GPU that the engine is for, and there an engine is compared before it is handed over."""
    reason = None if flavour.builds_without_gpu else verify.why_not(flavour)
    if reason is not None:
        raise EngineError(
            f"{flavour} builds an engine, and compares it with its graph, on the GPU that it is for, and here is"
            f" {reason}; run this on the target, or build with --runtime tensorrt-rtx, which needs no GPU"
        )


def job_of(
    graph: Path,
    request: EngineRequest,
    flavour: Flavour,
    command: str,
    progress: Progress,
    images: tuple[Path, ...] = (),
) -> Job:
    demand_possible(flavour, request)
    demand_gpu(flavour)
    progress("reading the graph")
    card = read_card(request.card) if request.card else None
    model = onnx.load(graph)
    demand_plugins(flavour, request, model, graph.name)
    sampling = sampling_of(flavour, request, model, graph.name)
    with runnable(graph, model) as path, open_session(path, card=card) as session:
        signature = session.signature
    written = read_precision(model)
    if request.calibration is not None and str(written) != "fp32":
        raise GraphError(
            f"{graph.name} is {written}; TensorRT's calibrator takes the FP32 graph it came from"
        )
    profile = profile_of(graph, signature, request.profile)
    calibration = request.calibration
    if calibration is not None and calibration.cache is None and len(calibration.images) < profile.usual:
        raise RequestError(
            f"{len(calibration.images)} images are fewer than one batch of {profile.usual}; give more, or --batch 1"
        )
    if request.dla is not None:
        with listening(flavour) as heard:
            demand_core(open_builder(flavour, graph, signature, heard), request.dla)
    digest = digest_of_graph(graph)
    return Job(
        graph,
        digest,
        model,
        signature,
        written,
        request,
        flavour,
        profile,
        command,
        progress,
        sampling,
        images,
    )


def digest_of_graph(graph: Path) -> str:
    """Of the file, and of those that its weights lie in where they lie outside it."""
    model = onnx.load(graph, load_external_data=False)
    beside = {
        external_data_helper.ExternalDataInfo(tensor).location
        for tensor in model.graph.initializer
        if external_data_helper.uses_external_data(tensor)
    }
    digests = [files.digest_of(path) for path in (graph, *(graph.parent / name for name in sorted(beside)))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
