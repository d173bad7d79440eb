import re
from dataclasses import dataclass, field
from typing import Annotated

import pytest

from segdeploy.model.typed_json import WrongField, from_json


@dataclass(frozen=True)
class Wheel:
    spokes: Annotated[int, range(1, 100)]
    maker: str = "unknown"


@dataclass(frozen=True)
class Bicycle:
    name: str
    length: float
    wheels: tuple[Wheel, ...]
    frame: tuple[float, str] = (0.0, "steel")
    bell: Wheel | None = None
    counts: dict[str, int] = field(default_factory=dict)
    kind: Annotated[str, ("city", "race")] = "city"
    number: Annotated[str, re.compile(r"\d+")] | None = None
    sold: bool = False


WHOLE = {
    "name": "größe", "length": 2, "wheels": [{"spokes": 36, "maker": "a"}, {"spokes": 32}], "frame": [1.5, "carbon"],
    "bell": None, "counts": {"gears": 7}, "kind": "race", "number": "12", "sold": True,
}  # fmt: skip


def test_every_kind_of_field():
    wheels = (Wheel(36, "a"), Wheel(32))
    assert from_json(Bicycle, WHOLE) == Bicycle(
        "größe", 2.0, wheels, (1.5, "carbon"), None, {"gears": 7}, "race", "12", True
    )
    least = {"name": "x", "length": 1.5, "wheels": []}
    assert from_json(Bicycle, least) == Bicycle("x", 1.5, ())
    assert type(from_json(Bicycle, WHOLE).length) is float


def test_a_name_of_a_file_need_not_be_utf_8():
    assert from_json(Bicycle, WHOLE | {"name": "\udcff"}).name == "\udcff"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 3}, "name is 3; expected text"),
        ({"name": None}, "name is null; expected text"),
        ({"name": "\ud800"}, r"name is '\ud800'; expected text"),
        ({"length": "1"}, "length is '1'; expected a finite number"),
        ({"length": True}, "length is true; expected a finite number"),
        ({"length": float("nan")}, "length is nan; expected a finite number"),
        ({"length": float("inf")}, "length is inf; expected a finite number"),
        ({"length": -(10**400)}, "length is -10000000000000000...0000000000000000000; expected a finite number"),
        ({"wheels": {}}, "wheels is an object; expected a list"),
        ({"wheels": [{"spokes": 3}, []]}, "wheels[1] is a list; expected an object"),
        ({"wheels": [{"spokes": 3.0}]}, "wheels[0].spokes is 3.0; expected a whole number"),
        ({"wheels": [{"spokes": 0}]}, "wheels[0].spokes is 0; expected 1 to 99"),
        ({"wheels": [{"spokes": 2**63}]}, "wheels[0].spokes is 9223372036854775808; expected a whole number"),
        ({"wheels": [{}]}, "wheels[0] has no 'spokes'"),
        ({"bell": {"spokes": 1, "tone": "a"}}, "bell has 'tone', which is none of its fields"),
        ({"frame": [1.5]}, "frame is a list of 1; expected one of 2"),
        ({"frame": [1.5, 2]}, "frame[1] is 2; expected text"),
        ({"counts": {"gears": 7.5}}, "counts.gears is 7.5; expected a whole number"),
        ({"counts": {"\udfff": 7}}, r"a name in counts is '\udfff'; expected text"),
        ({"kind": "mountain"}, "kind is 'mountain'; expected city or race"),
        ({"number": "12a"}, r"number is '12a'; expected text that matches \d+"),
        ({"number": 12}, "number is 12; expected text"),
        ({"sold": 1}, "sold is 1; expected true or false"),
        ({"weels": []}, "it has 'weels', which is none of its fields"),
    ],
)  # fmt: skip
def test_the_first_wrong_field_is_named(change, said):
    with pytest.raises(WrongField) as raised:
        from_json(Bicycle, WHOLE | change)
    assert str(raised.value) == said


@pytest.mark.parametrize(("value", "found"), [([], "a list"), (None, "null"), ("x", "'x'"), (1, "1")])
def test_what_is_no_object(value, found):
    with pytest.raises(WrongField, match=f"^it is {found}; expected an object$"):
        from_json(Bicycle, value)


def test_what_is_missing():
    with pytest.raises(WrongField, match=r"^it has no 'wheels'$"):
        from_json(Bicycle, {"name": "x", "length": 1})


def test_an_older_schema_called_fields_otherwise():
    renamed = {"Wheel": {"sticks": "spokes", "tyre": None}}
    older = WHOLE | {"wheels": [{"sticks": 3, "tyre": 4}]}
    assert from_json(Bicycle, older, renamed).wheels == (Wheel(3),)
    with pytest.raises(WrongField, match=r"^wheels\[0\]\.spokes is 'x'; expected a whole number$"):
        from_json(Bicycle, WHOLE | {"wheels": [{"sticks": "x"}]}, renamed)
