import numpy as np
import pytest

from segdeploy.errors import RequestError
from segdeploy.prove.choose import draw, draw_covering


def test_a_draw_is_seeded_and_in_order():
    assert draw(5, 9, 0) == [0, 1, 2, 3, 4]
    first, again, other = draw(100, 10, 1), draw(100, 10, 1), draw(100, 10, 2)
    assert first == again != other
    assert first == sorted(set(first))
    assert len(first) == 10


def test_rare_classes_are_covered():
    pixels = np.zeros((200, 4), np.int64)
    pixels[:, 0] = 5000
    pixels[::3, 1] = 500
    pixels[[17, 90, 150], 2] = 300  # rare
    pixels[[42, 60], 3] = 99, 20  # nowhere large
    for seed in range(5):
        chosen = draw_covering(pixels, 16, seed)
        assert len(chosen) == len(set(chosen)) == 16
        assert len({17, 90, 150} & set(chosen)) == 2  # its share of 16
        assert (pixels[chosen, 1] > 0).sum() >= 2
        assert 42 in chosen
    assert draw_covering(pixels, 16, 0) != draw_covering(pixels, 16, 1)


def test_few_images_show_each_class_too():
    """Fewer than eight images: an eighth of them is none, and a class still gets one."""
    pixels = np.zeros((100, 3), np.int64)
    pixels[:, 0] = 5000
    pixels[[31, 77], 1] = 300
    pixels[[5], 2] = 300
    for seed in range(5):
        chosen = draw_covering(pixels, 4, seed)
        assert len(chosen) == 4
        assert 5 in chosen
        assert {31, 77} & set(chosen)


def test_all_of_them():
    pixels = np.ones((9, 2), np.int64) * 1000
    assert draw_covering(pixels, 9, 0) == list(range(9))


# The share of images that show a class, and on how many pixels: of the order of Cityscapes, rare and small ones too.
STREETS = {
    "road": (0.98, 6e5), "sidewalk": (0.95, 1e5), "building": (0.98, 4e5), "wall": (0.33, 1e4),
    "fence": (0.44, 1e4), "pole": (0.99, 2e4), "traffic light": (0.56, 1500), "traffic sign": (0.94, 5000),
    "vegetation": (0.97, 2e5), "terrain": (0.56, 8000), "sky": (0.90, 6e4), "person": (0.79, 6000),
    "rider": (0.34, 2500), "car": (0.95, 8e4), "truck": (0.12, 9000), "bus": (0.09, 15000),
    "train": (0.05, 2e4), "motorcycle": (0.17, 2500), "bicycle": (0.55, 4000),
}  # fmt: skip


def streets(seed, images):
    """Motorcycles and bicycles have riders, and a town has trains or none."""
    rng = np.random.default_rng(seed)
    shares, typical = np.array(list(STREETS.values())).T
    names = list(STREETS)
    shows = rng.random((images, len(names))) < shares
    town = np.arange(images) * 18 // images
    shows[:, names.index("train")] &= town % 6 == 0
    ridden = shows[:, names.index("motorcycle")] | shows[:, names.index("bicycle")]
    shows[:, names.index("rider")] &= ridden
    pixels = np.exp(rng.normal(np.log(typical), 1.2, shows.shape))
    return np.where(shows, pixels, 0).astype(np.int64)


@pytest.mark.parametrize("count", [8, 16, 64, 500])
def test_rare_classes_of_streets_are_covered(count):
    missed, quota = 0, count // 8
    for seed in range(5):
        pixels = streets(seed, 2975)
        chosen = draw_covering(pixels, count, seed)
        assert len(set(chosen)) == count
        for kind, name in enumerate(STREETS):
            there, taken = (pixels[:, kind] >= 100).sum(), (pixels[chosen, kind] >= 100).sum()
            assert taken >= min(quota, there), name
        by_chance = pixels[draw(2975, count, seed)]
        missed += int(((by_chance >= 100).sum(0) < quota).sum())
    assert missed >= 5  # or this would say nothing


def test_a_negative_seed():
    for drawn in (lambda: draw(9, 3, -1), lambda: draw_covering(np.ones((9, 2), np.int64), 3, -1)):
        with pytest.raises(RequestError, match="--seed -1 is less than 0"):
            drawn()
