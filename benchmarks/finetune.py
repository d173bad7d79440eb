"""What does a fine-tuned network reach on images that nothing was chosen by, and for how much processor time?

    python benchmarks/finetune.py --name camvid --checkpoint DIR --root CAMVID --mapping YAML --split train \
        --report val -- --crop 224x288 --batch 3 --steps 680 --rare --rate 2.5e-4
    python benchmarks/finetune.py --name scenes --checkpoint models/demo-b0 --dataset scenes --root NEW \
        --mapping benchmarks/twelve_classes.yaml --split train --report val -- \
        --recipe benchmarks/twelve_recipe.yaml --watch-every 160

What follows `--` goes to `segdeploy finetune` as it is. One thread computes, in a process of its own, whose processor
time is counted whole: reading, drawing crops, watching and the last scores are in it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from setting import RESULTS, setting, write_results

from segdeploy.model.training import RECORD_OF_TRAINING


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--name", required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--dataset", default="folder", help="folder, or scenes, which are made into --root")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--mapping", type=Path, required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--report", required=True, metavar="SPLIT")
    parser.add_argument("flags", nargs="*")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "trained"
        words = [
            sys.executable, "-m", "segdeploy", "finetune", str(asked.checkpoint), "--dataset", asked.dataset, "--root",
            str(asked.root), "--mapping", str(asked.mapping), "--split", asked.split, "--report-split", asked.report,
            "--threads", "1", "--device", "cpu", *asked.flags, "-o", str(folder),
        ]  # fmt: skip
        subprocess.run(words, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        training = json.loads((folder / RECORD_OF_TRAINING).read_text())
    facts = {
        "checkpoint": asked.checkpoint.name,
        "data": asked.name,
        "images": training["images"],
        "watched_images": training["watched_images"],
        "recipe": training["recipe"],
        "before": training["before"],
        "history": training["history"],
        "reported": training["reported"],
        "processor_seconds": round(spent.ru_utime + spent.ru_stime, 1),
        "peak_bytes": spent.ru_maxrss * 1024,
    }
    write_results(setting(1) | facts, RESULTS / f"finetune.{asked.name}.json")


if __name__ == "__main__":
    main()
