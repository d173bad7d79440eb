"""Says how a network is trained: each part is a field here, a line of a recipe file, and a flag of the command.

Nothing heavy is imported, because `--help` reads the fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from segdeploy.errors import RequestError
from segdeploy.size import Size

COMPUTED_IN = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Between:
    """Holds the least and the greatest value that a number of a recipe may have."""

    least: float
    most: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.least <= value <= self.most

    def __str__(self) -> str:
        return f"{self.least:g} to {self.most:g}"


def recipe_part(default: Any, words: str) -> Any:
    return field(default=default, metadata={"words": words})


Count, Share = Between(1, 10_000_000), Between(0, 1)


@dataclass(frozen=True)
class TrainingRecipe:
    steps: Annotated[int, Count] = recipe_part(2000, "steps of the optimiser")
    batch: Annotated[int, Between(1, 1024)] = recipe_part(4, "crops in a step, on each process")
    accumulate: Annotated[int, Between(1, 1024)] = recipe_part(1, "batches whose gradients make one step")
    crop: str = recipe_part("512x512", "size of a crop, HxW")
    rate: Annotated[float, Between(1e-9, 1)] = recipe_part(6e-5, "learning rate")
    head_rate: Annotated[float, Between(0, 1000)] = recipe_part(
        10.0, "the head's learning rate, in times of the others'"
    )
    decay: Annotated[float, Share] = recipe_part(0.01, "weight decay; of norms and biases it is 0")
    warm_up: Annotated[float, Share] = recipe_part(0.05, "share of the steps in which the rate rises")
    power: Annotated[float, Between(0, 10)] = recipe_part(1.0, "power of the rate's way down to 0")
    restarts: Annotated[int, Between(0, 100)] = recipe_part(0, "how often the rate starts again from above")
    balance: bool = recipe_part(False, "weigh classes by how few pixels they have")
    rare: bool = recipe_part(False, "draw crops by rare classes")
    ohem: Annotated[float, Share] = recipe_part(
        0.0, "learn from pixels whose class gets less than this probability; 0: from all"
    )
    ohem_least: Annotated[float, Share] = recipe_part(
        0.05, "with ohem, the hardest share of a crop's pixels that stays at least"
    )
    least_scale: Annotated[float, Between(0.1, 10)] = recipe_part(0.5, "least scale of an image")
    most_scale: Annotated[float, Between(0.1, 10)] = recipe_part(2.0, "greatest scale of an image")
    most_of_one: Annotated[float, Share] = recipe_part(
        0.75, "share of a crop that one class may have, if another crop can be found"
    )
    flip: bool = recipe_part(True, "mirror every second image")
    distort: bool = recipe_part(True, "change brightness, contrast, saturation and hue")
    dropout: Annotated[float, Share] = recipe_part(
        0.1, "share of the channels left out before the classifier"
    )
    auxiliary: Annotated[float, Between(0, 10)] = recipe_part(
        0.0, "weight of an auxiliary FCN head on the third map"
    )
    average: Annotated[float, Share] = recipe_part(
        0.0, "decay of an average of the weights (EMA), as in 0.999; 0: none"
    )
    answer_weight: Annotated[float, Between(0, 1000)] = recipe_part(3.0, "weight of a teacher's answer")
    map_weight: Annotated[float, Between(0, 1000)] = recipe_part(1.0, "weight of a teacher's last map")
    temperature: Annotated[float, Between(0.1, 100)] = recipe_part(4.0, "temperature of both")
    precision: Annotated[str, COMPUTED_IN] = recipe_part(
        "fp32", f"type that is computed in: {', '.join(COMPUTED_IN)}"
    )
    seed: Annotated[int, Between(0, 2**31 - 1)] = recipe_part(0, "seed of what is drawn")

    def __post_init__(self) -> None:
        if self.least_scale > self.most_scale:
            raise RequestError(
                f"images are scaled by {self.least_scale:g} to {self.most_scale:g}: the least is above the greatest"
            )
        Size.parse(self.crop)

    @property
    def crop_size(self) -> Size:
        return Size.parse(self.crop)


WORDS: dict[str, tuple[Any, str]] = {
    one.name: (one.default, one.metadata["words"]) for one in fields(TrainingRecipe)
}
OF_A_TEACHER = ("answer_weight", "map_weight", "temperature")  # nothing without one
