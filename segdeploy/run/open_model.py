"""Defines what the sessions of all runtimes share: they close with their block, and describe themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdeploy.model.signature import Signature, describe

if TYPE_CHECKING:
    from typing_extensions import Self


class OpenModel:
    """Closes with its `with` block, and describes itself."""

    name: str  # the file's, or the one that the model was opened with
    device: str  # cpu, a provider of ONNX Runtime, or the GPU's name
    signature: Signature

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        takes, gives = describe(self.signature.input), describe(self.signature.output)
        return f"<{type(self).__name__} of {self.name} on {self.device}: {takes} to {gives}>"
