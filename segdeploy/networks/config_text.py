"""Reads the configuration that mmcv (0.x) and mmengine (1.x) store beside weights: a Python file as text, never run.

The text is parsed, and only assigned values are read: numbers, text, lists, tuples, dictionaries, also as `dict(...)`,
and names assigned before. Anything else is code, and is refused where its value is needed.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from segdeploy.errors import CheckpointError
from segdeploy.networks.config_keys import as_list
from segdeploy.size import SMALLEST

_LONGEST = 1 << 20  # characters; a trainer writes some ten thousand
_MOST_VALUES = 1 << 16  # in one assignment, those of the names it mentions among them


@dataclass(frozen=True)
class _Code:
    """Marks something that is not a value."""

    line: int
    what: str


class _NoValue(Exception):
    def __init__(self, node: ast.expr, what: str) -> None:
        super().__init__(what)
        self.found = _Code(node.lineno, what)


@dataclass(frozen=True)
class ConfigText:
    source: str
    values: Mapping[str, Any]  # by their names

    def value(self, name: str) -> Any:
        """Return the value of `name`; None if the text does not assign it."""
        value = self.values.get(name)
        if isinstance(value, _Code):
            raise CheckpointError(
                f"line {value.line} of the config text of {self.source} has {value.what} in {name}; expected values"
                " alone, because nothing of a checkpoint is run"
            )
        return value

    def dictionary(self, name: str) -> dict[str, Any]:
        """Return the dictionary `name`; {} if the text does not assign it."""
        value = self.value(name)
        if not isinstance(value, dict | None):
            raise CheckpointError(
                f"the config text of {self.source} has {name} = {value!r:.60}; expected a dictionary"
            )
        return value or {}


def config_text(meta: Mapping[str, Any], source: str) -> ConfigText | None:
    """Read the configuration in a checkpoint's `meta`; None where there is none, or it builds on files not here."""
    text = next((meta[key] for key in ("config", "cfg") if isinstance(meta.get(key), str)), "")
    if not text.strip():
        return None
    if len(text) > _LONGEST:
        raise CheckpointError(
            f"the config text of {source} has {len(text)} characters; expected {_LONGEST} at most"
        )
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"the config text of {source} cannot be read as Python ({str(error).splitlines()[0][:80]}); save its"
            ' weights without it to have the usual values: torch.save(torch.load(FILE)["state_dict"], NEW_FILE)'
        ) from error
    values: dict[str, Any] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            value = _value_or_code(statement.value, values)
            values |= {target.id: value for target in statement.targets if isinstance(target, ast.Name)}
    return None if "_base_" in values else ConfigText(source, values)


# ---- what mmsegmentation's say of images -----------------------------------------------------------------------


def preprocessor_of(text: ConfigText) -> dict[str, Any]:
    """Read how images are prepared, under the keys of preprocessor_config.json; unknown facts are left out."""
    model = text.dictionary("model")
    norm = (
        text.dictionary("img_norm_cfg")
        or text.dictionary("data_preprocessor")
        or model.get("data_preprocessor")
        or {}
    )
    if not isinstance(norm, dict) or norm.get("to_rgb", norm.get("bgr_to_rgb", True)) is not True:
        raise CheckpointError(
            f"the config text of {text.source} says that its network reads blue before green and red ({norm!r:.200});"
            " only networks that read red, green, blue are supported"
        )
    found: dict[str, Any] = {"resize": "linear"}
    if {"mean", "std"} <= norm.keys():
        found |= {"image_mean": as_list(norm["mean"]), "image_std": as_list(norm["std"]), "do_rescale": False}
    sides, step = _tested_at(text, model), _stride(model)
    if sides:
        found["size"] = dict(zip(("height", "width"), sides, strict=True))
    if sides and step and all(SMALLEST <= one <= side for one, side in zip(step, sides, strict=True)):
        found["window_stride"] = dict(zip(("height", "width"), step, strict=True))
    return found


def _stride(model: Mapping[str, Any]) -> tuple[int, int] | None:
    """Find height and width of the step between two windows of the test; None where it takes whole images."""
    test = model.get("test_cfg")
    if not isinstance(test, dict) or test.get("mode") != "slide":
        return None
    step = test.get("stride")
    return _two_sides((step, step) if isinstance(step, int) else step)


def _tested_at(text: ConfigText, model: Mapping[str, Any]) -> tuple[int, int] | None:
    """Find height and width of one test pass: the window's, or the size that the pipeline resizes images into."""
    test = model.get("test_cfg")
    if isinstance(test, dict) and test.get("mode") == "slide":
        crop = test.get("crop_size")
        return _two_sides((crop, crop) if isinstance(crop, int) else crop)
    steps = text.value("test_pipeline")
    for step in steps if isinstance(steps, list | tuple) else ():
        scale = step.get("img_scale", step.get("scale")) if isinstance(step, dict) else None
        if isinstance(scale, list) and scale:  # several passes: take the first
            scale = scale[0]
        if sides := _two_sides(scale):
            return sides[1], sides[0]  # mmsegmentation puts the width first here, and last in a window
    return None


def _two_sides(value: object) -> tuple[int, int] | None:
    if isinstance(value, list | tuple) and len(value) == 2:
        first, second = value
        if type(first) is int and type(second) is int:
            return first, second
    return None


# ---- values ----------------------------------------------------------------------------------------------------


def _value_or_code(node: ast.expr, known: Mapping[str, Any]) -> Any:
    try:
        value = _value(node, known)
        if _count(value) > _MOST_VALUES:
            raise _NoValue(node, f"more than {_MOST_VALUES} values")
    except _NoValue as error:
        return error.found
    except RecursionError:
        return _Code(node.lineno, "values too deep in each other")
    return value


def _count(value: Any) -> int:
    """Count values, shared ones each time, and stop a little above the limit."""
    waiting, found = [value], 0
    while waiting and found <= _MOST_VALUES:
        found += 1
        one = waiting.pop()
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list | tuple) else ()
        waiting.extend(inner)
    return found


def _value(node: ast.expr, known: Mapping[str, Any]) -> Any:
    reader = _READERS.get(type(node))
    if reader is None:
        raise _NoValue(node, f"code ({type(node).__name__})")
    return reader(node, known)


def _name(node: ast.Name, known: Mapping[str, Any]) -> Any:
    value = known.get(node.id)
    if node.id not in known or isinstance(value, _Code):
        raise _NoValue(node, f"the name {node.id!r:.40}, which stands for no value")
    return value


def _negative(node: ast.UnaryOp, known: Mapping[str, Any]) -> Any:
    value = _value(node.operand, known)
    if not isinstance(node.op, ast.USub) or not isinstance(value, int | float):
        raise _NoValue(node, "code (UnaryOp)")
    return -value


def _dictionary(node: ast.Dict, known: Mapping[str, Any]) -> Any:
    if None in node.keys:
        raise _NoValue(node, "code (an unpacked dictionary)")
    keys = [_value(key, known) for key in node.keys if key is not None]
    if not all(isinstance(key, str | int | float | None) for key in keys):
        raise _NoValue(node, "a key that is neither text nor a number")
    return dict(zip(keys, (_value(item, known) for item in node.values), strict=True))


def _call(node: ast.Call, known: Mapping[str, Any]) -> Any:
    if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args:
        raise _NoValue(node, f"code (a call of {ast.unparse(node.func)[:40]})")
    if any(keyword.arg is None for keyword in node.keywords):
        raise _NoValue(node, "code (an unpacked dictionary)")
    return {str(keyword.arg): _value(keyword.value, known) for keyword in node.keywords}


_READERS: dict[type[ast.expr], Callable[[Any, Mapping[str, Any]], Any]] = {
    ast.Constant: lambda node, known: node.value,
    ast.Name: _name,
    ast.List: lambda node, known: [_value(item, known) for item in node.elts],
    ast.Tuple: lambda node, known: tuple(_value(item, known) for item in node.elts),
    ast.UnaryOp: _negative,
    ast.Dict: _dictionary,
    ast.Call: _call,
}
