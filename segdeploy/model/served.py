"""Says what the parameters of a model on a Triton server hold, beside its signature: a proof for whoever asks it.

They travel with the model: a client, or a probe in a container, has an address and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from segdeploy.errors import GraphError
from segdeploy.model.engine import GoldenFrame
from segdeploy.model.signature import PREFIX
from segdeploy.model.typed_json import WrongField, from_json
from segdeploy.untrusted import Unreadable, parse_json

# A helper of a model is no segmentation model itself: this parameter names the one that it belongs to.
BELONGS_TO = f"{PREFIX}belongs_to"


@dataclass(frozen=True)
class ServedVersion:
    """Describes one version of a model: the file it is a copy of, and frames with the labels that it has to give."""

    artifact: str  # the name of its file
    digest: str
    precision: str
    golden: tuple[GoldenFrame, ...] = ()

    def as_text(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))


def parameter_of(version: str) -> str:
    """Name the parameter that describes a version."""
    return f"{PREFIX}version.{version}"


def read_served(parameters: Mapping[str, str], version: str, source: str) -> ServedVersion | None:
    """Read what a server says of a version; None where segdeploy did not make its repository."""
    text = parameters.get(parameter_of(version))
    if text is None:
        return None
    try:
        return from_json(ServedVersion, parse_json(text))
    except (Unreadable, WrongField) as error:
        raise GraphError(
            f"{source} carries parameters of segdeploy that do not hold ({error}); make its repository again:"
            " segdeploy triton MODEL -o REPOSITORY"
        ) from error
