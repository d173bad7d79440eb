"""Every flag that takes a number refuses what is outside its bounds, and says them."""

import argparse
import re
from typing import get_args, get_type_hints

import pytest

from segdeploy.cli import main, parser
from segdeploy.errors import TrainingError
from segdeploy.train.recipe import WORDS as WORDS_OF_RECIPES
from segdeploy.train.recipe import TrainingRecipe
from segdeploy.train.recipe_file import read_training_recipe

THREADS = BATCH = (1, 1024)
IMAGES = (1, 10_000_000)
SECONDS = (0.001, 1_000_000)
OF_A_NETWORK = {"--mean": (0, 255), "--std": (0.001, 1000), "--threshold": (-1e9, 1e9)}
OF_TRAINING = {"--watch-every": IMAGES, "--threads": THREADS, "--folds": (2, 1000)}
OF_CALIBRATION = {
    "--count": IMAGES,
    "--seed": (0, 4_294_967_295),
    "--percentile": (0.001, 100),
    "--max-drop": (0, 100),
    "--probes": IMAGES,
}
BOUNDS = {
    "export": {"--batch": BATCH} | OF_A_NETWORK,
    "adopt": {"--batch": BATCH} | OF_A_NETWORK,
    "run": {
        "--alpha": (0, 1),
        "--device": (0, 1023),
        "--threads": THREADS,
        "--max-pixels": (1, 1e12),
        "--every": (1, 1_000_000),
        "--batch": BATCH,
        "--max-frames": (1, 1_000_000_000),
        "--view": (0, 65535),
        "--stdin-fps": (0.001, 1000),
        "--timeout": SECONDS,
        "--reconnect": (0, 1_000_000),
    },
    "archive": {
        "--workers": THREADS,
        "--device": (0, 1023),
        "--threads": THREADS,
        "--every": (1, 1_000_000),
        "--max-pixels": (1, 1e12),
    },
    "inspect": {"--batch": BATCH, "--measured": (0.0001, 1e9)},
    "evaluate": {
        "--limit": IMAGES,
        "--workers": (1, 256),
        "--processes": THREADS,
        "--device": (0, 1023),
        "--scales": (0.001, 16),
        "--severities": (1, 5),
        "--worst": (0, 1000),
    },
    "quantize": OF_CALIBRATION | {"--processes": THREADS},
    "build-engine": OF_CALIBRATION | {"--workspace": (0.001, 1024), "--dla": (0, 15)},
    "bench": {
        "--batch": BATCH,
        "--duration": SECONDS,
        "--warmup": (0, 1_000_000_000),
        "--device": (0, 1023),
        "--streams": (1, 256),
        "--threads": THREADS,
    },
    "verify": {"--deadline": SECONDS, "--device": (0, 1023)},
    "tune": {"--count": IMAGES, "--max-drop": (0, 100), "--duration": SECONDS},
    "finetune": OF_TRAINING,
    "distil": OF_TRAINING,
    "selftest": {"--seconds": (1, 36_000)},
    "cache compare": {"--within": (0, 100)},
    "deepstream config": {"--streams": BATCH},
    "triton": {
        "--batch": BATCH,
        "--delay": (0, 10_000),
        "--queue": (1, 1_000_000),
        "--instances": (1, 256),
        "--gpus": (0, 255),
        "--threads": THREADS,
    },
}
ROWS = [(verb, flag, *bounds) for verb, flags in BOUNDS.items() for flag, bounds in flags.items()]
# What holds no number, or has a parser of its own that knows the bounds (sizes, profiles).
WORDS = {
    "--triton",
    "--size",
    "--stride",
    "--frame",
    "--muxer",
    "--json",
    "--require",
    "--shard",
    "--compare",
}


def flags_of(one, name=""):
    for action in one._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, below in action.choices.items():
                yield from flags_of(below, f"{name} {verb}".strip())
        elif action.option_strings:
            yield name, action


def test_no_number_is_without_bounds():
    typed = {
        (verb, action.option_strings[-1])
        for verb, action in flags_of(parser())
        if action.type
        and not action.choices
        and not action.dest.startswith("recipe_")
        and not (isinstance(action.type, type) and action.type.__name__ == "Path")
    }
    assert {one for one in typed if one[1] not in WORDS} == {(verb, flag) for verb, flag, *_ in ROWS}


@pytest.mark.parametrize(
    "name", [name for name, (default, _) in WORDS_OF_RECIPES.items() if type(default) in (int, float)]
)
def test_a_recipes_number_is_refused_with_its_bounds(name):
    """They are flags and lines of a file, and one type knows the bounds of both."""
    _, limits = get_args(get_type_hints(TrainingRecipe, include_extras=True)[name])
    kind = type(WORDS_OF_RECIPES[name][0])
    for value in (limits.least - 1, limits.most + 1):
        with pytest.raises(TrainingError, match=re.escape(str(limits))):
            read_training_recipe(None, {name: kind(value)})


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "flag", "least", "most"), ROWS)
def test_what_is_outside_its_bounds_is_refused_with_them(verb, flag, least, most, misused):
    words = f"outside {least:,} to {most:,}"
    for value in (least - 1, most + 1, most * 10, "nan", "inf", "-inf", "1e999", "-" + "9" * 400, "9" * 5000):
        said = misused(*verb.split(), f"{flag}={value}")
        assert f"argument {flag}: " in said
        assert len(said) < 2500
        if isinstance(value, int) and flag != "--batch":
            assert f": {value} is {words}" in said
    for value in ("x", "1,5,x", "0x10", "١x", "1 2"):
        assert f"argument {flag}: " in misused(*verb.split(), f"{flag}={value}")


@pytest.mark.parametrize(("verb", "flag", "least", "most"), ROWS)
def test_the_bounds_themselves_are_taken(verb, flag, least, most, misused):
    for value in (least, most):
        said = misused(*verb.split(), f"{flag}={value}", "--no-such-flag")
        assert f"argument {flag}" not in said


@pytest.mark.parametrize("word", ["--alpha=", "--alpha=--", "-o--", ""])
def test_a_flag_without_a_value_is_refused(word, misused):
    said = misused("run", "m.onnx", "a.png", word)
    assert said == f"segdeploy: error: argument 4 is empty: {word!r}; give it a value, or leave it out"


def test_a_list_is_no_longer_than_sensible(misused):
    assert "argument --batch: 65 numbers are more than 64" in misused("bench", "--batch", ",".join("1" * 65))
    assert main(["bench", "gone.onnx", "--batch", ",".join("1" * 64)]) == 1
