"""Runs about a thousand hostile inputs and prints how many were handled as promised: python tests/hostile_more.py

They are the rows of data/hostile, and command lines about good files that were damaged at random (--variants, from
--seed on): each has to be answered or refused, in words, and nothing else may happen.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

from fuzz import mutated
from hostile_files import GOOD, make_files
from hostile_rows import Field, Row, read_rows

# What reads a file of each kind; {} is the file.
COMMANDS = {
    "onnx": ("inspect {}", "run {} in/good/images/a.png -o out", "deepstream config {} -o out"),
    "pth": ("export {} --size 0x0 -o out", "deepstream replay -c in/good/config.yml -i {} -o out/x.mp4"),
    "safetensors": ("export {} --card nope -o out",),
    "pkl": ("export {} --card nope -o out",),
    "calib": (
        "cache show {}",
        "cache compare in/good/cache.calib {}",
        "cache convert {} --for 8.6.1 -o out/x.calib",
    ),
    "json": ("cache show {}", "cache convert {} --for 8.6.1 -o out/x.calib"),
    "yaml": (
        "inspect in/graphs/foreign.onnx --card {}",
        "evaluate in/good/frames.onnx --dataset folder --root in/good/data --mapping {}",
        "quantize in/good/nvinfer.onnx --recipe {} -o out",
    ),
    "png": ("run in/good/frames.onnx {} -o out", "quantize in/good/nvinfer.onnx --images {} -o out"),
    "jpg": ("run in/good/frames.onnx {} -o out",),
    "mp4": ("run in/good/frames.onnx {} -o out", "bench in/good/frames.onnx --end-to-end {} --duration 0.05"),
    "txt": ("deepstream lint {}", "deepstream replay -c {} -i in/good/images -o out/x.mp4"),
    "yml": ("deepstream lint {}",),
    "engine": ("inspect {}", "verify {}"),
}
WORDS = (
    b"\x1b]0;x\x07",
    b"9" * 5000,
    b"-1",
    b"nan",
    b"../../x",
    b"\xff",
    b"$(touch PWNED)",
    b"\n",
    b"[" * 2000,
)


def variants(place: Path, count: int, seed: int) -> Iterator[Row]:
    """Damage good files, each in its turn, and ask for one of the commands that read it; any documented end will do."""
    draw = random.Random(seed)
    folder = place / "variants"
    folder.mkdir()
    for number in range(count):
        kind = list(COMMANDS)[number % len(COMMANDS)]
        path = folder / f"{number}.{kind}"
        path.write_bytes(mutated(draw, [(place / "good" / GOOD[kind]).read_bytes()], WORDS))
        yield Row("any", draw.choice(COMMANDS[kind]).format(f"in/variants/{path.name}"), "")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", type=int, default=400, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "field"
        root.mkdir()
        rows = [*read_rows(), *variants(make_files(root), arguments.variants, arguments.seed)]
        field = Field(root)
        held: Counter[str] = Counter()
        for row in rows:
            _, broken = field.run(row)
            held["as promised" if not broken else "otherwise"] += 1
            if broken:
                print(f"{row.command}: {'; '.join(broken)}{f' (known: {row.fails})' if row.fails else ''}")
        field.close()
    print(f"{held['as promised']:,} of {len(rows):,} as promised, {held['as promised'] / len(rows):.2%}")
    return 0 if held["as promised"] >= 0.99 * len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
