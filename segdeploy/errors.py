"""Defines every error that a user can cause, so that one `except SegdeployError` tells a bad request from a bug.

    SegdeployError
    ├── RequestError       a value that was asked for makes no sense (a size, a flag, an empty folder)
    ├── CardError          a model card that does not exist or does not hold
    ├── CheckpointError    a checkpoint that cannot be read as the network it should be
    ├── MissingExtra       a package that this step needs is not installed
    ├── GraphError         an ONNX file that cannot be read, or whose signature is not understood
    ├── ExportDisagrees    an exported graph that answers differently from the network it came from
    ├── QuantisationCosts  an INT8 graph beyond the accuracy that was allowed to be lost
    ├── CalibrationError   statistics, scales or a cache that cannot be used as they are
    ├── EngineError        an engine that cannot be built, or that cannot run here
    ├── EngineDisagrees    an engine that answers differently from the graph it was built from
    ├── ImageError         an image that cannot be decoded
    ├── VideoError         a video, a camera or a stream that cannot be opened, read or reached
    ├── EvaluationError    a data set, its labels or a mapping that a model cannot be scored on
    ├── TrainingError      a training whose data, recipe or kept state is not as it must be
    ├── DeepStreamError    an nvinfer configuration that cannot be written, read, replayed or started
    └── OutputError        a result that cannot be written

A message says what was found, what was expected and what to do, in one or two plain sentences. It may quote names that
others have chosen, so it is made safe to print and short enough to read.
Only `segdeploy.cli` catches, prints and exits.
"""

from __future__ import annotations

from segdeploy.printable import in_brief, printable


class SegdeployError(Exception):
    """Is the root of the errors above; any other exception that escapes is a bug."""

    def __str__(self) -> str:
        return in_brief(printable(super().__str__()))


class RequestError(SegdeployError):
    pass


class CardError(SegdeployError):
    pass


class CheckpointError(SegdeployError):
    pass


class MissingExtra(SegdeployError):
    """Is raised when a step needs `package`, which comes with `pip install segdeploy[extra]`."""

    def __init__(self, package: str, extra: str, step: str, remedy: str = "") -> None:
        remedy = remedy or f"pip install 'segdeploy[{extra}]'"
        super().__init__(f"{step} needs {package}, which is not installed: {remedy}")
        self.package = package
        self.extra = extra


class GraphError(SegdeployError):
    pass


class ExportDisagrees(SegdeployError):
    pass


class QuantisationCosts(SegdeployError):
    pass


class CalibrationError(SegdeployError):
    pass


class EngineError(SegdeployError):
    pass


class EngineDisagrees(SegdeployError):
    pass


class ImageError(SegdeployError):
    pass


class VideoError(SegdeployError):
    pass


class EvaluationError(SegdeployError):
    pass


class TrainingError(SegdeployError):
    pass


class DeepStreamError(SegdeployError):
    pass


class OutputError(SegdeployError):
    pass
