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
    ├── ServerError        a model server that cannot be reached, or does not do what it should
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
    """Is raised before any work, for a value on the command line or in a call that cannot be meant.

    Cure: Give a value of the kind that the message names; `segdeploy VERB --help` lists what each flag takes.
    """


class CardError(SegdeployError):
    """Is raised for a card, or its labels, that is not there, lacks a key, or has one that no card has.

    Cure: `segdeploy models` lists the shipped cards; models/README.md has every key, and models/schemas/card.json
    is for editors.
    """


class CheckpointError(SegdeployError):
    """Is raised for weights that are not those of a network that segdeploy reads, or that are damaged or encrypted.

    Cure: Check the download and its configuration; take another network as .onnx through `segdeploy adopt`.
    """


class MissingExtra(SegdeployError):
    """Is raised when a step needs `package`, which comes with `pip install segdeploy[extra]`.

    Cure: type what the message ends with. `cpu` and `gpu` overwrite each other's files: take one of them.
    """

    def __init__(self, package: str, extra: str, step: str, remedy: str = "") -> None:
        remedy = remedy or f"pip install 'segdeploy[{extra}]'"
        super().__init__(f"{step} needs {package}, which is not installed: {remedy}")
        self.package = package
        self.extra = extra


class GraphError(SegdeployError):
    """Is raised for an .onnx that is damaged, was changed after its record was written, or says too little.

    Cure: Export it again; `--card`, or `segdeploy adopt`, says what a graph from elsewhere does not.
    """


class ExportDisagrees(SegdeployError):
    """Is raised when a written graph answers differently from the network in PyTorch, or from the original graph;
    it is removed.

    Cure: This should not happen: report it with the command. A card may allow more (`min_pixel_agreement`), if you
    know why.
    """


class QuantisationCosts(SegdeployError):
    """Is raised when INT8 costs more than `--max-drop` with as many layers kept out as may be; nothing is written.

    Cure: Calibrate on more images, or on such as the model will see; or allow more; `--fp16` alone costs almost
    nothing.
    """


class CalibrationError(SegdeployError):
    """Is raised for scales, a cache or a recipe that is damaged, or of another graph, size or card.

    Cure: Leave out `--recipe` or `--scales` to search anew, or give the one that was made for this graph.
    """


class EngineError(SegdeployError):
    """Is raised when TensorRT refuses a graph, or when an engine is of another version or GPU than there is here.

    Cure: Build it where it is to run: the message has the command. `segdeploy doctor` says what is installed and
    what fits.
    """


class EngineDisagrees(SegdeployError):
    """Is raised when an engine answers differently from its graph; it is removed, or marked as refuted in its
    record.

    Cure: The message names NVIDIA's known bug where one fits; otherwise try `--batch 1`, FP32, or another TensorRT.
    """


class ImageError(SegdeployError):
    """Is raised for an image that is damaged, of another format, or larger than `--max-pixels`.

    Cure: Give another file, or a larger `--max-pixels`.
    """


class VideoError(SegdeployError):
    """Is raised for a source or an output of `run` that is not there, hangs longer than `--timeout`, or has no
    codec here.

    Cure: Try the address with another player; see `--timeout` and `--reconnect`.
    """


class EvaluationError(SegdeployError):
    """Is raised when label files are not found or mean something else, or when a model's classes are not the data
    set's.

    Cure: The message names the paths that were looked for; a mapping says which id is which class
    (models/labels/README.md).
    """


class TrainingError(SegdeployError):
    """Is raised when images are missing or shared between training and report, or when a stopped training had
    another recipe.

    Cure: Give splits that share no image; take another `-o` for another recipe.
    """


class DeepStreamError(SegdeployError):
    """Is raised when a graph is nothing that nvinfer can run, or when a configuration or a folder is not as it must
    be.

    Cure: `segdeploy deepstream lint` has a line and a remedy for each fault of a configuration.
    """


class ServerError(SegdeployError):
    """Is raised when a model server is not there, refuses, or answers with something else than the model's labels.

    Cure: Start it, or correct the address; `timeout=SECONDS` at its end gives a slow one more time. `segdeploy verify
    triton://…` says whether it answers rightly.
    """


class OutputError(SegdeployError):
    """Is raised when a file cannot be written: no folder, no right, no space, or something of yours in its place.

    Cure: Give another `-o`, or make room; nothing half-written is left.
    """
