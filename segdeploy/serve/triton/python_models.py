"""Runs in Triton's Python backend: a model in a session of our own, and what stands around it for image files.

A repository's model.py has one line, which takes a class from here. So this is imported by the server's Python, which
needs segdeploy, and by nothing else: `triton_python_backend_utils` is there alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import SegdeployError
from segdeploy.model.metadata import read_signature
from segdeploy.model.served import BELONGS_TO
from segdeploy.model.signature import PREFIX, Signature, TensorFacts
from segdeploy.picture.image import decode_frame, fit, geometry_of, unfit
from segdeploy.picture.rle import segments_of
from segdeploy.run.session import Session, open_session
from segdeploy.size import Size

GPU = "GPU"


class PythonModel:
    """Answers requests one by one: one that cannot be answered gets its error, and the others their answers."""

    def initialize(self, args: Mapping[str, str]) -> None:
        import triton_python_backend_utils as triton

        self.triton: Any = triton
        config = json.loads(args["model_config"])
        found = config.get("parameters", {})
        self.parameters = {name: str(one["string_value"]) for name, one in found.items()}
        self.open(args)

    def open(self, args: Mapping[str, str]) -> None:
        """Make ready what the requests need."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self.answered(lambda one=one: self.answer(one)) for one in requests]  # type: ignore[misc]

    def answer(self, request: Any) -> dict[str, NDArray[Any]]:
        """Compute the outputs of one request."""
        raise NotImplementedError

    def answered(self, compute: Callable[[], dict[str, NDArray[Any]]]) -> Any:
        """Give the response that Triton takes; what the caller sent is their fault, and anything else is ours."""
        triton = self.triton
        try:
            outputs = [triton.Tensor(name, np.ascontiguousarray(one)) for name, one in compute().items()]
            return triton.InferenceResponse(output_tensors=outputs)
        except SegdeployError as error:
            return refused_response(triton, str(error), triton.TritonError.INVALID_ARG)
        except Exception as error:  # noqa: BLE001 # it would end the process, and all requests with it
            return refused_response(triton, f"{type(error).__name__}: {error}", triton.TritonError.INTERNAL)

    def given(self, request: Any, name: str) -> NDArray[Any]:
        return np.asarray(self.triton.get_input_tensor_by_name(request, name).as_numpy())


def refused_response(triton: Any, words: str, status: Any) -> Any:
    return triton.InferenceResponse(output_tensors=[], error=triton.TritonError(words, status))


class FramesModel(PythonModel):
    """Runs the graph or the engine beside it in one of our sessions, all requests that Triton has merged at once."""

    session: Session

    def open(self, args: Mapping[str, str]) -> None:
        path = Path(args["model_repository"], args["model_version"], self.parameters[f"{PREFIX}file"])
        provider = "cuda" if args["model_instance_kind"] == GPU and path.suffix == ".onnx" else None
        threads = self.parameters.get(f"{PREFIX}threads")
        self.session = open_session(path, provider=provider, threads=int(threads) if threads else None)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        signature, triton = self.session.signature, self.triton
        frames = [self.given(request, signature.input.name) for request in requests]
        try:
            labels = labels_of_batch(self.session, np.concatenate(frames))
        except Exception:  # noqa: BLE001 # one of them is at fault; each is asked alone which
            return super().execute(requests)
        ends = np.cumsum([len(one) for one in frames])[:-1]
        return [
            triton.InferenceResponse(output_tensors=[triton.Tensor(signature.output.name, part)])
            for part in map(np.ascontiguousarray, np.split(labels, ends))
        ]

    def answer(self, request: Any) -> dict[str, NDArray[Any]]:
        signature = self.session.signature
        frames = self.given(request, signature.input.name)
        return {signature.output.name: labels_of_batch(self.session, frames)}

    def finalize(self) -> None:
        self.session.close()


def labels_of_batch(session: Session, frames: NDArray[np.uint8]) -> NDArray[Any]:
    """Label any number of frames; a session that takes one batch only gets the last one filled up with black."""
    fixed, (least, _) = session.signature.batch, session.batches
    slots = fixed or max(len(frames), least)
    labels = []
    for start in range(0, len(frames), slots):
        part = frames[start : start + slots]
        black = np.zeros((slots - len(part), *part.shape[1:]), part.dtype)
        labels.append(session.run(np.concatenate([part, black]) if len(black) else part)[: len(part)])
    return np.concatenate(labels)


class PartOfChain(PythonModel):
    """Knows the signature of the model that it stands beside, out of its own parameters."""

    signature: Signature

    def open(self, args: Mapping[str, str]) -> None:
        ends = [
            TensorFacts(name, dtype, tuple(shape))
            for name, dtype, shape in (
                json.loads(self.parameters[PREFIX + end]) for end in ("input", "output")
            )
        ]
        self.signature = read_signature(self.parameters, ends[:1], ends[1:], args["model_name"])
        self.fit = self.parameters[f"{PREFIX}fit"]

    def fitted(self, request: Any) -> tuple[NDArray[np.uint8], Size]:
        """Decode an image file, and fit it to the model; returns it as a batch of one, and the image's size."""
        data = self.given(request, "image").ravel()
        frame = decode_frame("the image", bytes(data[0]))
        made, geometry = fit(frame, self.signature.size, self.fit, self.signature.resize)
        return made[None], geometry.frame

    def raised(self, labels: NDArray[Any], size: Size) -> NDArray[Any]:
        """Bring the model's labels back to the image's size."""
        return unfit(labels, geometry_of(size, self.signature.size, self.fit))


class DecodeModel(PartOfChain):
    """Turns an image file's bytes into a frame of the model's size, and says how large the image is."""

    def answer(self, request: Any) -> dict[str, NDArray[Any]]:
        frames, size = self.fitted(request)
        return {self.signature.input.name: frames, "size": sides_as_tensor(size)}


class BackModel(PartOfChain):
    """Brings the model's labels back to the image's own size."""

    def answer(self, request: Any) -> dict[str, NDArray[Any]]:
        height, width = self.given(request, "size").ravel()
        return {"labels": self.raised(self.given(request, "small")[0], Size(int(height), int(width)))[None]}


class AreasModel(PartOfChain):
    """Asks the model from inside the server, and answers each class's share of the image instead of its pixels.

    Masks, as COCO's run lengths, are encoded only where the request asks for that output.
    """

    def answer(self, request: Any) -> dict[str, NDArray[Any]]:
        frames, size = self.fitted(request)
        labels = self.raised(self.labels_by_model(frames), size)
        counts = np.bincount(labels.ravel(), minlength=self.signature.classes)[: self.signature.classes]
        areas = (counts / labels.size).astype(np.float32)
        answer: dict[str, NDArray[Any]] = {"areas": areas[None], "size": sides_as_tensor(size)}
        if "masks" in request.requested_output_names():
            names = self.signature.labels.names
            masks = {names[index]: mask for index, mask in segments_of(labels).items()}
            answer["masks"] = np.array([[json.dumps(masks).encode()]], np.object_)
        return answer

    def labels_by_model(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        triton, signature = self.triton, self.signature
        inner = triton.InferenceRequest(
            model_name=self.parameters[BELONGS_TO],
            requested_output_names=[signature.output.name],
            inputs=[triton.Tensor(signature.input.name, frames)],
            preferred_memory=triton.PreferredMemory(triton.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if inner.has_error():
            raise SegdeployError(inner.error().message())
        (answer,) = inner.output_tensors()
        labels: NDArray[Any] = np.asarray(answer.as_numpy())[0]
        return labels


def sides_as_tensor(size: Size) -> NDArray[Any]:
    return np.array([[size.height, size.width]], np.int64)
