"""Pooling in the forms of `exact_forms` gives what PyTorch's own gives, and leaves the rest to PyTorch."""

import pytest
import torch
import torch.nn.functional as F

from segdeploy.networks.exact_forms import FORMS, ExactForms, unpooled

MAPS = torch.randn(2, 3, 13, 18, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sides", [1, (2, 3), (13, 18), (5, 7), (None, 4), 6, (14, 20)])
@pytest.mark.parametrize("pool", [F.adaptive_avg_pool2d, F.adaptive_max_pool2d])
def test_adaptive_pooling(pool, sides):
    expected = pool(MAPS, sides)
    with ExactForms():
        assert torch.allclose(pool(MAPS, sides), expected, atol=1e-6)


def test_layers_take_the_forms_too(monkeypatch):
    taken = []
    for function, form in list(FORMS.items()):
        monkeypatch.setitem(
            FORMS, function, lambda *given, _form=form, **named: taken.append(_form) or _form(*given, **named)
        )
    with ExactForms():
        torch.nn.AdaptiveAvgPool2d(5)(MAPS)
        torch.nn.AdaptiveMaxPool2d(5)(MAPS)
        torch.nn.MaxUnpool2d(2)(*torch.nn.MaxPool2d(2, return_indices=True)(MAPS))
    assert [form.__name__ for form in taken] == ["averages", "maxima", "maxima_with_places", "unpooled"]


@pytest.mark.parametrize("kernel", [2, (3, 2)])
@pytest.mark.parametrize("keeps_size", [True, False])
def test_unpooling_puts_values_back(kernel, keeps_size):
    tied = MAPS.round()  # equal values in a window: the first one is the place

    def there_and_back():
        values, places = F.max_pool2d(tied, kernel, return_indices=True)
        size = tied.shape[-2:] if keeps_size else None
        return (
            values,
            places,
            F.max_unpool2d(values * 2, places, kernel, output_size=size) if keeps_size else values,
        )

    expected = there_and_back()
    with ExactForms():
        made = there_and_back()
    assert all(torch.equal(*pair) for pair in zip(expected, made, strict=True))


@pytest.mark.parametrize("how", [(3, 2, 1), (2, 2, 1), (2, 1, 0), (2, 2, 0, 2), (2, 2, 0, 1, True)])
def test_windows_that_do_not_lie_side_by_side_stay_as_they_are(how):
    with ExactForms():
        values, places = F.max_pool2d(MAPS, *how, return_indices=True)
    own, theirs = F.max_pool2d(MAPS, *how, return_indices=True)
    assert torch.equal(values, own)
    assert torch.equal(places, theirs)


@pytest.mark.parametrize(
    ("size", "taken"), [((12, 18), True), ((13, 19), True), ((11, 18), False), ((12, 17), False)]
)
def test_an_unpooled_map_is_not_smaller_than_its_windows(size, taken):
    values, places = F.max_pool2d(MAPS, 2, return_indices=True)
    assert (unpooled(F.max_unpool2d, values, places, 2, output_size=size) is not None) == taken
