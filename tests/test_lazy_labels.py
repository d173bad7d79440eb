import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segdeploy.run.lazy_labels import LazyLabels, raised_labels

SHAPES = [
    ((5, 4, 7), (4, 4)), ((19, 16, 20), (4, 4)), ((3, 1, 1), (4, 4)), ((3, 1, 9), (2, 8)), ((7, 9, 5), (2, 16)),
    ((256, 8, 8), (16, 16)), ((1, 3, 3), (4, 4)), ((2, 2, 3), (32, 32)), ((4, 80, 70), (2, 2)),
]  # fmt: skip


def wholly_raised(logits, factors):
    """The arg-max of all logits at full size, in float64."""
    size = logits.shape[1] * factors[0], logits.shape[2] * factors[1]
    raised = F.interpolate(
        torch.from_numpy(logits)[None].double(), size, mode="bilinear", align_corners=False
    )
    return np.stack(list(raised[0].numpy())).argmax(0)


def noise(shape, rng):
    """Every cell has other classes at its corners, and nearly every class may win in it."""
    return rng.standard_normal(shape).astype(np.float32)


def ties(shape, rng):
    """Few and exact values, so that in many places several classes are equal, also between the corners."""
    return rng.integers(-2, 3, shape).astype(np.float32)


def scene(shape, rng):
    """Large areas with few edges."""
    coarse = torch.from_numpy(rng.standard_normal((1, shape[0], 2, 2)))
    return F.interpolate(coarse, shape[1:], mode="bicubic")[0].float().numpy()


def winner_between(shape, rng):
    """The last class is the largest nowhere at a corner, and in the middle of every cell."""
    logits = np.full(shape, -100, np.float32)
    rows, columns = np.indices(shape[1:])
    for index in range(min(shape[0], 4)):
        logits[index, (rows % 2 * 2 + columns % 2) == index] = 10
    logits[-1] = np.maximum(logits[-1], 9)
    return logits


@pytest.mark.parametrize(("shape", "factors"), SHAPES)
@pytest.mark.parametrize("make", [noise, ties, scene, winner_between])
def test_labels_are_those_of_the_raised_logits(make, shape, factors):
    logits = make(shape, np.random.default_rng(0))
    labels = raised_labels(logits, factors)
    assert labels.dtype == np.uint8
    assert labels.flags.c_contiguous
    assert np.array_equal(labels, wholly_raised(logits, factors))


def test_a_class_that_wins_between_the_corners_only_is_seen():
    logits = winner_between((5, 6, 6), None)
    assert 4 not in logits.argmax(0)
    assert (raised_labels(logits, (4, 4)) == 4).mean() > 0.5


def test_equal_logits_go_to_the_lowest_index():
    logits = np.zeros((3, 2, 2), np.float32)
    logits[0] = -1
    assert (raised_labels(logits, (4, 4)) == 1).all()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "keeps", "shape"),
    [("int64", True, (1, 8, 12)), ("uint8", False, (8, 12)), ("int32", False, (8, 12))],
)
def test_the_answer_has_the_graphs_type_and_shape(dtype, keeps, shape, batch):
    logits = noise((batch, 3, 2, 3), np.random.default_rng(1))
    answer = LazyLabels((4, 4), dtype, keeps).of(logits)
    assert (answer.dtype, answer.shape) == (dtype, (batch, *shape))
    for image, labels in zip(logits, answer, strict=True):
        assert np.array_equal(labels.reshape(8, 12), wholly_raised(image, (4, 4)))
