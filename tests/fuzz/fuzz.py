"""Fuzzes one reader, led by coverage: python tests/fuzz/fuzz.py records -max_total_time=3600

`all` takes every target, as many at once as there are cores. `-runs=N` ends a target after N inputs, `-seed=N` makes
it repeatable. Where Atheris is installed (pip install 'segdeploy[fuzz]') it chooses the inputs, and knows all of
libFuzzer's flags; elsewhere, or with --plain, they are mutations of the seeds. What is raised and is no SegdeployError
ends a target with a status that is not 0, and leaves its input under crashes/; with --keep-going each such fault is
left there once, and told at the end.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
LONGEST = 65_536  # bytes of an input
FOREVER = 1 << 60
LIBFUZZER = (
    f"-max_len={LONGEST}", "-timeout=30", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0"
)  # fmt: skip


class Watched:
    """A target whose foreign exceptions are counted, each with the first input that raised it."""

    def __init__(self, name: str, keep_going: bool, folder: Path) -> None:
        from targets import TARGETS

        from segdeploy.errors import SegdeployError

        self.name, self.keep_going, self.folder = name, keep_going, folder
        self.target, self.ours = TARGETS[name], SegdeployError
        self.inputs = 0
        self.faults: Counter[str] = Counter()

    def __call__(self, data: bytes) -> None:
        self.inputs += 1
        if self.inputs % 1000 == 0:
            self.note()
        try:
            self.target.read(data)
        except self.ours:
            return
        except Exception as error:
            self.keep(error, data)
            if not self.keep_going:
                raise

    def keep(self, error: Exception, data: bytes) -> None:
        place = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        if fault not in self.faults:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{self.name}-{len(self.faults)}").write_bytes(data)
            print(f"{self.name}: {fault}: {str(error)[:200]}", file=sys.stderr)
        self.faults[fault] += 1

    def note(self) -> None:
        """libFuzzer ends the process itself, so what is to be known afterwards is written on the way."""
        if self.keep_going:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{self.name}.tally").write_text(f"{self}\n")

    def __str__(self) -> str:
        faults = ", ".join(f"{fault} ({count:,})" for fault, count in self.faults.items())
        return f"{self.name}: {self.inputs:,} inputs, {faults or 'no fault'}"


def mutated(draw: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One of the seeds with one to eight changes: bits, bytes, words, pieces taken out, doubled, or of another seed."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        at, to = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        kind = draw.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at:at] = draw.randbytes(draw.randrange(1, 5))
        elif kind == 2:
            del data[at : min(to, at + draw.choice((1, 4, 64, LONGEST)))]
        elif kind == 3:
            data[at:at] = data[at : min(to, at + 64)] * draw.choice((1, 2, 40))
        elif kind == 4 and words:
            data[at:at] = draw.choice(words)
        elif kind == 5 and words:
            data[at : min(to, at + 16)] = draw.choice(words)
        else:
            other = draw.choice(seeds)
            place = draw.randrange(len(other) + 1)
            data[at:to] = other[place : place + to - at]
    return bytes(data[:LONGEST])


def fuzz_plainly(watched: Watched, seeds: Sequence[bytes], runs: float, seconds: float, seed: int) -> None:
    draw, begun_s = random.Random(seed), time.monotonic()
    words = [word.encode() for word in watched.target.words]
    for data in seeds:
        watched(data)
    while watched.inputs < runs and time.monotonic() - begun_s < seconds:
        watched(mutated(draw, seeds, words))


def fuzz_with_atheris(watched: Watched, seeds: Sequence[bytes], flags: Sequence[str]) -> None:
    import atheris

    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{watched.name}-"))
    for number, data in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(data)
    words = [word.encode() for word in watched.target.words]
    lines = ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words if len(word) < 60]
    dictionary = corpus.with_suffix(".dict")
    dictionary.write_text("".join(lines))
    watched(b"")  # imports what is instrumented
    atheris.Setup([sys.argv[0], f"-dict={dictionary}", *LIBFUZZER, *flags, str(corpus)], watched)
    atheris.Fuzz()


def instrumented() -> bool:
    """Have Atheris follow our modules, which have to be imported for the first time after this."""
    try:
        import atheris
    except ImportError:
        return False
    atheris.instrument_imports(include=["segdeploy"]).__enter__()
    return True


def fuzz(arguments: argparse.Namespace, flags: list[str]) -> int:
    guided = not arguments.plain and instrumented()
    from targets import PLACE

    watched = Watched(arguments.target, arguments.keep_going, arguments.crashes)
    seeds = [data[:LONGEST] for data in watched.target.seeds()]
    (PLACE / "report").mkdir(parents=True)
    try:
        if guided:
            limits = {
                "max_total_time": arguments.max_total_time,
                "runs": arguments.runs,
                "seed": arguments.seed + 1,
            }
            flags += [f"-{name}={int(value)}" for name, value in limits.items() if value < FOREVER]
            fuzz_with_atheris(watched, seeds, flags)
        else:
            fuzz_plainly(watched, seeds, arguments.runs, arguments.max_total_time, arguments.seed)
    finally:
        watched.note()
        shutil.rmtree(PLACE, ignore_errors=True)
    print(watched)
    return 1 if watched.faults else 0


def fuzz_all(names: Sequence[str], words: Sequence[str]) -> int:
    """A process each, and what the last line of each says."""
    rest = [word for word in words if word != "all"]

    def one(name: str) -> int:
        done = subprocess.run(
            [sys.executable, __file__, name, *rest],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing was said"]
        print(
            f"{name}: status {done.returncode}",
            *(said if done.returncode else said[-1:]),
            sep="\n  ",
            flush=True,
        )
        return done.returncode

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        statuses = list(pool.map(one, names))  # of all, also where one has failed
    return int(any(statuses))


def main() -> int:
    from targets import TARGETS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "target", choices=[*TARGETS, "all"], metavar="TARGET", help=", ".join([*TARGETS, "all"])
    )
    parser.add_argument("--plain", action="store_true", help="mutate without coverage")
    parser.add_argument("--keep-going", action="store_true", help="count faults, and go on")
    parser.add_argument("--crashes", type=Path, default=Path("crashes"), metavar="DIR")
    parser.add_argument("-max_total_time", type=float, default=FOREVER, metavar="S")
    parser.add_argument("-runs", type=float, default=FOREVER, metavar="N")
    parser.add_argument("-seed", type=int, default=0, metavar="N")
    arguments, flags = parser.parse_known_args()
    if arguments.target == "all":
        return fuzz_all(list(TARGETS), sys.argv[1:])
    return fuzz(arguments, flags)


if __name__ == "__main__":
    sys.exit(main())
