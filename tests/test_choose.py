import numpy as np

from segdeploy.calibrate.choose import draw, draw_covering


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
    pixels[42, 3] = 99  # too few pixels to be shown
    for seed in range(5):
        chosen = draw_covering(pixels, 16, seed)
        assert len(chosen) == len(set(chosen)) == 16
        assert len({17, 90, 150} & set(chosen)) == 2  # its share of 16
        assert (pixels[chosen, 1] > 0).sum() >= 2
    assert draw_covering(pixels, 16, 0) != draw_covering(pixels, 16, 1)


def test_all_of_them():
    pixels = np.ones((9, 2), np.int64) * 1000
    assert draw_covering(pixels, 9, 0) == list(range(9))
