"""How many inputs did the readers take without an exception that is not ours, and the C++ parser without a report?

    python tests/fuzz/fuzz.py all --plain --keep-going -runs=50000 | tee readers.log
    ./fuzz_parser -max_total_time=3600 -print_final_stats=1 -close_fd_mask=2 2>&1 | tee parser.log
    python benchmarks/fuzzed.py readers.log --parser parser.log

Counts what tests/fuzz/fuzz.py and libFuzzer said in their logs; tests/native/fuzz_parser.cpp says how it is built.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

from setting import RESULTS, setting, write_results

READER = re.compile(r"^\s*([a-z-]+): ([\d,]+) inputs, (.+)$", re.MULTILINE)
EXECUTED = re.compile(r"^stat::number_of_executed_units: (\d+)$", re.MULTILINE)
SECONDS = re.compile(r"^Done \d+ runs in (\d+) second", re.MULTILINE)
FOUND = re.compile(r"ERROR: |SUMMARY: |runtime error:")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("readers", type=Path, nargs="+", help="logs of tests/fuzz/fuzz.py")
    parser.add_argument(
        "--parser", type=Path, nargs="*", default=[], help="logs of libFuzzer on the C++ parser"
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "fuzz.json")
    asked = parser.parse_args()
    inputs: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for log in asked.readers:
        for name, count, said in READER.findall(log.read_text(errors="replace")):
            inputs[name] += int(count.replace(",", ""))
            faults[name] += said != "no fault"
    facts = {
        "inputs": sum(inputs.values()),
        "targets_with_a_fault": sum(map(bool, faults.values())),
        "readers": dict(sorted(inputs.items())),
        "parser": [parser_facts(log) for log in asked.parser],
    }
    write_results(setting(1) | facts, asked.output)


def parser_facts(log: Path) -> dict[str, str | int]:
    said = log.read_text(errors="replace")
    executed, seconds = EXECUTED.search(said), SECONDS.search(said)
    if executed is None or seconds is None:
        raise SystemExit(f"{log} is of a run that did not end")
    reports = len(FOUND.findall(said))
    return {"build": log.stem, "inputs": int(executed[1]), "seconds": int(seconds[1]), "reports": reports}


if __name__ == "__main__":
    main()
