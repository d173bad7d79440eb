import inspect
import re

from segdeploy import errors


def test_the_drawn_tree_is_the_tree():
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    found = [
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind)
        and issubclass(kind, errors.SegdeployError)
        and kind is not errors.SegdeployError
    ]
    assert drawn == found


def test_a_missing_extra_says_what_to_type():
    error = errors.MissingExtra("torch", "export", "exporting")
    assert str(error) == "exporting needs torch, which is not installed: pip install 'segdeploy[export]'"
