"""Holds what a user may say about an INT8 graph: on which images it is based and how its scales are found.

Nothing heavy is imported, so that the command line can make its choices of this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

AUTO = "auto"
THRESHOLDS = ("entropy", "percentile", "minmax", "mse")
METHODS = (AUTO, *THRESHOLDS)  # auto: entropy or mse for each group of layers
EQUALISE = ("auto", "on", "off")


@dataclass(frozen=True)
class CalibrationOptions:
    """The user's own words, of which a recipe may say the rest; None where nothing was said."""

    images: Path | None = None  # without labels
    dataset: str | None = None  # a labelled data set instead, by its name, below `root`
    root: Path | None = None
    split: str | None = None
    mapping: Path | None = None
    recipe: str | None = None  # a shipped recipe's name, or a .yaml
    scales: Path | None = None  # a calibration cache or a scales.json: images only judge
    count: int | None = None
    seed: int | None = None
    method: str | None = None
    percentile: float | None = None
    equalise: str | None = None
    probes: int | None = None
    max_drop: float | None = None

    @property
    def has_source(self) -> bool:
        """INT8 can be based on something: images, or scales that are there already."""
        said = (self.images, self.dataset, self.root, self.recipe, self.scales)
        return any(one is not None for one in said)
