"""Holds what is asked of a model repository. Nothing heavy is imported: the command line makes its choices of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from segdeploy.errors import RequestError
from segdeploy.model.names import name_for

BACKENDS = ("onnxruntime", "tensorrt", "python")
USUAL_BATCH = 8
_LATEST = re.compile(r"latest:([1-9]\d{0,3})")
_SOME = re.compile(r"[1-9]\d{0,8}(,[1-9]\d{0,8})*")


@dataclass(frozen=True)
class TritonRequest:
    models: tuple[Path, ...]
    backend: str | None = None  # None: the one of a model's suffix
    card: str | None = None  # of a foreign graph
    versions_of: str | None = None  # the models are versions 1, 2, … of one of this name
    policy: str = "all"  # which versions are served: all, latest:N, or numbers with commas between
    batch: int | None = None  # the largest that Triton makes of requests; None: the engine's, or USUAL_BATCH
    delay_ms: float = 2.0  # that a request may wait for others
    queue: int = 256  # requests that may wait, beyond which they are refused
    instances: int = 1
    gpus: tuple[int, ...] = ()
    cpu: bool = False
    threads: int | None = None  # of one instance in the Python backend
    jpeg: bool = False  # a second model, from an image file's bytes to labels at its size
    areas: bool = False  # a third, to the share of each class
    fit: str = "stretch"

    def demand_sense(self) -> None:
        """Refuse options that contradict each other."""
        if self.cpu and self.gpus:
            raise RequestError("--cpu and --gpus contradict each other; give one of them")
        if len(set(self.gpus)) != len(self.gpus):
            raise RequestError(f"--gpus names a GPU twice: {', '.join(map(str, self.gpus))}")
        if self.backend == "python" and set(self.gpus) - {0}:
            raise RequestError(
                "the Python backend computes on the first GPU only; leave --gpus out, or take the backend of the"
                " model's kind"
            )
        if self.threads is not None and self.backend != "python":
            raise RequestError(
                "--threads is for --backend python; Triton's own backends choose for themselves"
            )
        if self.versions_of is not None and self.versions_of != name_for(self.versions_of):
            raise RequestError(
                f"--versions-of {self.versions_of!r} is no name of a model; expected lower-case letters, digits, and"
                f" . _ - between, as in {name_for(self.versions_of)}"
            )
        self.version_policy  # noqa: B018 - refuses one that is none

    @property
    def version_policy(self) -> dict[str, object]:
        """Give the policy as Triton's configuration has it."""
        if self.policy == "all":
            return {"all": {}}
        if found := _LATEST.fullmatch(self.policy):
            return {"latest": {"num_versions": int(found[1])}}
        if not _SOME.fullmatch(self.policy):
            raise RequestError(
                f"--policy {self.policy!r} is no version policy; expected all, latest:N, or numbers as in 1,3"
            )
        asked = [int(one) for one in self.policy.split(",")]
        if missing := sorted(set(asked) - set(range(1, self.versions + 1))):
            raise RequestError(f"--policy names version {missing[0]}, and there are 1 to {self.versions}")
        return {"specific": {"versions": asked}}

    @property
    def versions(self) -> int:
        return len(self.models) if self.versions_of else 1
