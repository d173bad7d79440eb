"""Does a student with a teacher beat the same student without, on scenes that neither learnt from?

    python benchmarks/distilled.py --seeds 0 1 2
    python benchmarks/distilled.py --name few-labels --labelled 8 --unlabelled 88 --crop 128x128 --steps 80

The teacher is the bundled SegFormer-B0. The student has its first block of each stage and no other: half of its
depth, with the weights that are there. The trainings of a seed see the same crops in the same order; without a teacher
it also learns for as much processor time as with one. What the teacher adds is the difference by seed, with its 95 %
interval by Student's t. Weights of the loss and the temperature are the recipe's defaults: no score chose them.
The student with a teacher sees the images without labels too, in every second crop; without one they are of no use.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from setting import RESULTS, ROOT, setting, write_results

from segdeploy import scenes
from segdeploy.size import Size
from segdeploy.train.distil import distil
from segdeploy.train.finetune import TrainingRequest, finetune
from segdeploy.train.material import learnt_and_reported
from segdeploy.train.recipe import TrainingRecipe

TEACHER = ROOT / "models" / "demo-b0"
SIZE = Size(128, 256)
REPORTED = 48  # scenes
QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t, 97.5 %, by the number of seeds
WITH, WITHOUT, LONGER = "with a teacher", "without", "without, as much processor time"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--name", default="scenes")
    parser.add_argument(
        "--labelled", type=int, default=48, help="scenes that are learnt from with their labels"
    )
    parser.add_argument(
        "--unlabelled", type=int, default=0, help="further ones, which the teacher alone answers for"
    )
    parser.add_argument("--crop", default=str(SIZE))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--processes", type=int, default=1, help="seeds that are learnt side by side")
    asked = parser.parse_args()
    path = RESULTS / f"distilled.{asked.name}.json"
    recipe = TrainingRecipe(
        steps=asked.steps, batch=asked.batch, crop=asked.crop, rate=asked.rate, least_scale=0.8, most_scale=1.25,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        student = half_as_deep(TEACHER, folder / "student")
        splits = (
            ("train", 0, asked.labelled),
            ("val", 500_000, REPORTED),
            ("more", 100_000, asked.unlabelled),
        )
        for split, seed, count in splits:
            scenes.write_cityscapes(folder / "scenes", count, seed, split, SIZE.height, SIZE.width)
        training, reported = learnt_and_reported("cityscapes", folder / "scenes", None, "train", "val")
        more = tuple(sorted((folder / "scenes/leftImg8bit/more").rglob("*.png")))
        request = TrainingRequest(training, reported, recipe, SIZE, device="cpu", threads=1, unlabelled=more)
        with ProcessPoolExecutor(asked.processes, multiprocessing.get_context("spawn")) as pool:
            found = pool.map(partial(arms, request, student, folder), asked.seeds)
            runs = [run for seed in found for run in seed]
    facts = {"teacher": TEACHER.name, "size": str(SIZE), "learnt": asked.labelled, "reported": REPORTED}
    facts |= {"unlabelled": asked.unlabelled}
    facts |= {
        "recipe": vars(recipe),
        "runs": runs,
        "gains": {arm: gain(runs, arm) for arm in (WITHOUT, LONGER)},
    }
    write_results(setting(1) | facts, path)


def arms(request: TrainingRequest, student: Path, folder: Path, seed: int) -> list[dict[str, Any]]:
    """Train with a teacher, without, and without for as much processor time as with one."""
    torch.set_num_threads(1)
    runs = [
        learnt(request, student, folder, seed, arm, steps=request.recipe.steps) for arm in (WITH, WITHOUT)
    ]
    longer = max(runs[0]["processor_seconds"] / runs[1]["processor_seconds"], 1)
    steps = round(request.recipe.steps * longer)
    return [*runs, learnt(request, student, folder, seed, LONGER, steps=steps)]


def learnt(
    request: TrainingRequest, student: Path, folder: Path, seed: int, arm: str, *, steps: int
) -> dict[str, Any]:
    seeded = replace(request, recipe=replace(request.recipe, seed=seed, steps=steps), watch_every=steps)
    output = folder / f"{seed}-{arm}"
    begin = time.process_time()
    if arm == WITH:
        done = distil(str(TEACHER), student, seeded, output=output).training
    else:
        done = finetune(student, replace(seeded, unlabelled=()), output=output).training
    spent = round(time.process_time() - begin, 1)
    run = {"arm": arm, "seed": seed, "steps": steps, "miou": done.reported.miou, "before": done.before}
    run["processor_seconds"] = spent
    print(json.dumps(run), flush=True)
    return run


def gain(runs: list[dict[str, Any]], without: str) -> dict[str, Any]:
    """Give the points of mIoU that the teacher adds, by seed, and the interval of their mean."""
    found = {arm: {run["seed"]: run["miou"] for run in runs if run["arm"] == arm} for arm in (WITH, without)}
    points = [100 * (found[WITH][seed] - found[without][seed]) for seed in found[WITH]]
    mean = statistics.mean(points)
    if len(points) not in QUANTILES:
        return {"points": points, "mean": mean, "interval": None}
    reach = QUANTILES[len(points)] * statistics.stdev(points) / math.sqrt(len(points))
    return {"points": points, "mean": mean, "interval": [mean - reach, mean + reach]}


def half_as_deep(checkpoint: Path, folder: Path) -> Path:
    """Keep the first block of each stage of a SegFormer."""
    folder.mkdir()
    weights = load_file(checkpoint / "model.safetensors")
    kept = {name: value for name, value in weights.items() if block_of(name) == 0}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((checkpoint / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "depths": [1] * len(config["depths"])}))
    preprocessor = json.loads((checkpoint / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**preprocessor, "licence": "Apache-2.0"}))
    return folder


def block_of(name: str) -> int:
    """Read which block of its stage a tensor is of; 0 where it is of none."""
    words = name.split(".")
    return int(words[words.index("block") + 2]) if "block" in words else 0


if __name__ == "__main__":
    main()
