"""Writes data/cuda_symbols.tsv: the functions of cuda-python's driver interface with their parameters, by version.

    pip download --no-deps -d wheels cuda-bindings==12.9.10        (and 13.5.0)
    python tests/make_cuda_symbols.py wheels/cuda_bindings-*.whl

Needs cuda-pathfinder, which the wheels import, and the Python that they are for; no driver, and no GPU.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

TABLE = Path(__file__).parent / "data" / "cuda_symbols.tsv"
FAMILIES = (
    "cuInit",
    "cuCtx",
    "cuDevice",
    "cuDriver",
    "cuEvent",
    "cuGraph",
    "cuLaunch",
    "cuMem",
    "cuModule",
    "cuStream",
)
LOOK = """
import inspect, json, sys
sys.path.insert(0, sys.argv[1])
from cuda.bindings import __version__, driver
found = {}
for name in dir(driver):
    if name.startswith(tuple(sys.argv[2].split())) and not inspect.isclass(getattr(driver, name)):
        found[name] = " ".join(inspect.signature(getattr(driver, name)).parameters)
print(json.dumps([__version__, found]))
"""


def look(wheel: str) -> tuple[str, dict[str, str]]:
    """The version and the functions of one wheel."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        command = [sys.executable, "-c", LOOK, folder, " ".join(FAMILIES)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    version, found = json.loads(done.stdout)
    return version, found


def main(wheels: list[str]) -> None:
    seen = dict(map(look, wheels))
    versions = sorted(seen, key=lambda version: [int(part) for part in version.split(".")])
    rows = ["\t".join(["function", *versions])]
    for name in sorted(set().union(*seen.values())):
        rows.append("\t".join([name, *(seen[version].get(name, "-") for version in versions)]))
    TABLE.write_text("\n".join(rows) + "\n")
    print(f"{TABLE}: {len(rows) - 1} functions of {', '.join(versions)}")


if __name__ == "__main__":
    main(sys.argv[1:])
