"""Records of engines that nothing has built: whole ones, of which a test says only what it is about."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from segdeploy.files import digest_of
from segdeploy.model.engine import (
    Binding,
    BuiltFrom,
    EngineFacts,
    EngineGpu,
    EngineMemory,
    EngineOptions,
    LayerCounts,
    Profile,
    Verified,
)
from segdeploy.model.record import ArtifactRecord, ArtifactSource, Normalisation
from segdeploy.model.signature import Signature


def facts_of_engine(
    path: Path, signature: Signature, profile: tuple[int, int, int] = (1, 1, 1), **changes: Any
) -> EngineFacts:
    ends = (("input", signature.input), ("output", signature.output))
    facts = EngineFacts(
        flavour="tensorrt",
        version="10.16.1",
        graph=BuiltFrom("x.onnx", "ab"),
        device=EngineGpu("Test GPU", "8.6"),
        targets=(),
        profile=Profile(*profile),
        bindings=tuple(Binding(end.name, mode, end.dtype, end.shape) for mode, end in ends),
        metadata=signature.metadata(),
        layers=LayerCounts("inspector", 2, {"FP32": 2}, {"embed": {"FP32": 2}}, None),
        memory=EngineMemory(path.stat().st_size, None),
        options=EngineOptions(),
        dla=None,
        calibration_digest=None,
        build_seconds=1.5,
        verified=Verified(why="no GPU"),
        golden=(),
    )
    return replace(facts, **changes)


def record_of_engine(path: Path, signature: Signature, engine: EngineFacts, **changes: Any) -> ArtifactRecord:
    record = ArtifactRecord(
        path.name,
        digest_of(path),
        signature.card,
        signature.interface,
        str(signature.size),
        signature.batch,
        "fp32",
        17,
        Normalisation(signature.mean, signature.scale),
        signature.resize,
        signature.labels.names,
        ArtifactSource("unknown", "unknown"),
        command="segdeploy build-engine x.onnx",
        engine=engine,
    )
    return replace(record, **changes)
