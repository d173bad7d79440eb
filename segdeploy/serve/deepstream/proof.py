"""What is known of the engine that a configuration names: nvinfer runs it whatever a comparison has shown."""

from __future__ import annotations

from segdeploy.errors import DeepStreamError
from segdeploy.files import digest_of
from segdeploy.model.record import read_record
from segdeploy.serve.deepstream.config import NvinferConfig

REMEDY = "remove it and its record, and build it again as its record says (segdeploy inspect), or let nvinfer build it"


def why_refuted(config: NvinferConfig) -> str | None:
    """What was seen to be wrong with the engine that lies there; None where nothing was, or nothing is known."""
    path = config.file("model-engine-file")
    if path is None or not path.is_file():
        return None
    record = read_record(path)
    if record is None or not record.engine.get("verified", {}).get("disagrees"):
        return None
    # nvinfer may have built it anew under its name since.
    return str(record.engine["verified"]["why"]) if record.digest == digest_of(path) else None


def demand_not_refuted(config: NvinferConfig) -> None:
    why = why_refuted(config)
    if why is not None:
        raise DeepStreamError(
            f"{config.get('model-engine-file')} was compared with its graph, and is wrong: {why}. Instead {REMEDY}"
        )
