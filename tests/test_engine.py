import pytest

from segdeploy.errors import RequestError
from segdeploy.model.engine import Profile


def test_a_profile():
    assert Profile.parse("1:4:8") == Profile(1, 4, 8)
    assert Profile.parse("4") == Profile(4, 4, 4)
    assert [Profile.parse(text).label for text in ("1", "4", "1:4:8")] == ["", ".b4", ".b1-4-8"]
    assert str(Profile(1, 4, 8)) == "1:4:8"


@pytest.mark.parametrize("text", ["", "1:2", "a", "1:2:3:4", "-1:1:1", "1:4:"])
def test_what_is_no_profile(text):
    with pytest.raises(RequestError, match="expected MIN:OPT:MAX"):
        Profile.parse(text)


@pytest.mark.parametrize("text", ["0", "4:2:8", "1:8:4", "1:1:2000"])
def test_profiles_that_do_not_hold(text):
    with pytest.raises(RequestError, match="does not hold"):
        Profile.parse(text)
