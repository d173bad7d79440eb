"""What suites are run on, made in benchmarks/made: street frames (a folder and a video), checkpoints of random weights.

The time of a dense network does not depend on its weights, so a B2 nobody had to download does.
"""

from __future__ import annotations

import argparse

import cv2
from setting import ROOT

from segdeploy import scenes
from segdeploy.picture.video_writing import ClipWriter
from segdeploy.size import Size

MADE = ROOT / "benchmarks" / "made"
COUNT = 16
FPS = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("frames", "checkpoint"))
    parser.add_argument("which", help="HxW of the frames, or b0 or b2")
    asked = parser.parse_args()
    if asked.what == "frames":
        make_frames(Size.parse(asked.which))
    else:
        make_checkpoint(asked.which)


def make_frames(size: Size) -> None:
    folder = MADE / f"frames.{size}"
    folder.mkdir(parents=True, exist_ok=True)
    with ClipWriter(MADE / f"frames.{size}.mp4", size, FPS) as clip:
        for place, scene in enumerate(scenes.make_clip(7, COUNT, size.height, size.width)):
            cv2.imwrite(str(folder / f"{place:03d}.jpg"), cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))
            clip.write(scene.image, place / FPS)


def make_checkpoint(name: str) -> None:
    from against_transformers import network

    network(name).save_pretrained(MADE / name)


if __name__ == "__main__":
    main()
