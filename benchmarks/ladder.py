"""What does each trick of the recipe add to a fine-tuned network, beside what another seed changes?

    python benchmarks/ladder.py --name camvid --checkpoint DIR --root CAMVID --mapping YAML --split train --report val \
        --size 192x256 --scale 0.53 --crop 128x176 --batch 2 --steps 100 --rate 2.5e-4 --seeds 0 1 2

The first rungs are climbed one on top of the other, from a plain training up to the recipe's defaults (but the
scales go around that of --size). Each of the others is put on the defaults alone. Every rung has the same images,
steps and seeds, and is scored on images that nothing was chosen by, with the weights of the last step. Seeds are the
outer loop, so a run that is stopped has whole ladders; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from setting import RESULTS, setting, write_results

from segdeploy.assess.bench.pytorch import EagerSession, assemble
from segdeploy.assess.evaluate.evaluate import evaluate
from segdeploy.assess.evaluate.windows import multi_scale
from segdeploy.size import Size
from segdeploy.train.finetune import TrainingRequest, finetune
from segdeploy.train.material import learnt_and_reported
from segdeploy.train.recipe import TrainingRecipe

PLAIN: dict[str, Any] = {
    "head_rate": 1.0, "warm_up": 0.0, "power": 0.0, "flip": False, "least_scale": 1.0, "most_scale": 1.0,
    "distort": False,
}  # fmt: skip
CLIMBED: tuple[tuple[str, dict[str, Any]], ...] = (  # what each changes of the one before
    ("plain: one constant rate, a drawn classifier", {}),
    ("transfer of the classifier's rows", {}),
    ("the head at 10 times the rate", {"head_rate": 10.0}),
    ("warm-up and falling rate", {"warm_up": 0.05, "power": 1.0}),
    ("random scale, mirrored images", {"flip": True, "least_scale": 0.75, "most_scale": 1.5}),
    ("photometric distortion: the defaults", {"distort": True}),
)
ALONE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("class weights", {"balance": True}),
    ("OHEM 0.7", {"ohem": 0.7}),
    ("rare-class crops", {"rare": True}),
    ("auxiliary head 0.4", {"auxiliary": 0.4}),
    ("averaged weights 0.97", {"average": 0.97}),
)
SCALES = (0.75, 1.0, 1.25)
AT_THE_TEST = "three scales, mirrored too, at the test"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--name", required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    for word in ("root", "mapping"):
        parser.add_argument(f"--{word}", type=Path, required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--report", required=True, metavar="SPLIT")
    parser.add_argument("--size", type=Size.parse, required=True)
    parser.add_argument("--scale", type=float, required=True, help="of an image in --size")
    parser.add_argument("--crop", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=1, help="rungs that are climbed side by side")
    asked = parser.parse_args()
    path = RESULTS / f"ladder.{asked.name}.json"
    shared = {"crop": asked.crop, "batch": asked.batch, "steps": asked.steps, "rate": asked.rate}
    facts = setting(1) | {
        "checkpoint": asked.checkpoint.name, "data": asked.name, "size": str(asked.size), "scale": asked.scale,
        "shared": shared, "runs": [],
    }  # fmt: skip
    if path.is_file():
        facts["runs"] = json.loads(path.read_text())["runs"]
    done = {(run["rung"], run["seed"]) for run in facts["runs"]}
    waiting = [(seed, rung) for seed in asked.seeds for rung in rungs() if (rung[1], seed) not in done]
    with ProcessPoolExecutor(asked.processes, multiprocessing.get_context("spawn")) as pool:
        for runs in pool.map(partial(climbed, asked, shared), *zip(*waiting, strict=True)):
            facts["runs"] += runs
            print(json.dumps(runs), flush=True)
            write_results(facts, path)


Rung = tuple[str, str, dict[str, Any], bool]  # its kind, its name, what it changes, whether rows are kept


def rungs() -> list[Rung]:
    found, changes = [], dict(PLAIN)
    for place, (name, more) in enumerate(CLIMBED):
        changes = changes | more
        found.append(("climbed", name, changes, place > 0))
    return found + [("alone", name, changes | more, True) for name, more in ALONE]


def climbed(asked: argparse.Namespace, shared: dict[str, Any], seed: int, rung: Rung) -> list[dict[str, Any]]:
    """Train once, and score; with the defaults, score at several scales too."""
    torch.set_num_threads(1)
    kind, called, changes, keeps_rows = rung
    scales = {side: changes[side] * asked.scale for side in ("least_scale", "most_scale")}
    recipe = TrainingRecipe(seed=seed, **shared, **changes | scales)
    learnt, reported = learnt_and_reported("folder", asked.root, asked.mapping, asked.split, asked.report)
    with tempfile.TemporaryDirectory() as name:
        start = asked.checkpoint if keeps_rows else strangers(asked.checkpoint, Path(name) / "start")
        request = TrainingRequest(
            learnt, reported, recipe, asked.size, watch_every=recipe.steps, device="cpu", threads=1
        )
        begin = time.process_time()
        done = finetune(start, request, output=Path(name) / "trained")
        spent = time.process_time() - begin
        training = done.training
        runs = [scores_of(training.reported.miou, training.reported.classes, spent)]
        runs[0]["kept"] = list(training.classes_kept)
        if called.endswith("the defaults"):
            begin = time.process_time()
            runs.append(at_the_test(done.folder, asked.size, reported))
            runs[1] |= {"rung": AT_THE_TEST, "kind": "alone"}
            runs[1]["processor_seconds"] = round(spent + time.process_time() - begin, 1)
    return [{"kind": kind, "rung": called, "seed": seed} | run for run in runs]


def scores_of(miou: float, classes: Any, spent: float) -> dict[str, Any]:
    return {
        "miou": miou,
        "iou": {one.name: one.iou for one in classes},
        "processor_seconds": round(spent, 1),
    }


def strangers(checkpoint: Path, folder: Path) -> Path:
    """Copy a checkpoint under other names of classes, so that no row is kept."""
    folder.mkdir()
    for path in checkpoint.iterdir():
        if path.name != "config.json":
            (folder / path.name).symlink_to(path.resolve())
    config = json.loads((checkpoint / "config.json").read_text())
    config["id2label"] = {place: f"stranger {place}" for place in config["id2label"]}
    config["label2id"] = {name: int(place) for place, name in config["id2label"].items()}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def at_the_test(folder: Path, size: Size, reported: Any) -> dict[str, Any]:
    session = EagerSession(assemble(str(folder), "plain", "logits", size, fp16=False))
    predict = multi_scale(session, SCALES, flip=True, frame_scale=size)
    found = evaluate(predict, reported, session.signature.labels)
    return {"miou": found.scores.miou}


if __name__ == "__main__":
    main()
