"""Makes loop.webp, the picture at the top of the README, from the bundled model and a made street.

python pictures/make_loop.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segdeploy import scenes
from segdeploy.convert.bundled import STEM
from segdeploy.demo import HELD_OUT
from segdeploy.files import digest_of
from segdeploy.model.record import ArtifactRecord, matching_record
from segdeploy.picture.image import Frame
from segdeploy.picture.segmentation import Segmentation
from segdeploy.run.session import open_session, segment_many
from segdeploy.size import Size

HERE = Path(__file__).parent
DRAWN, SHOWN = Size(900, 1600), Size(432, 768)  # drawn large and shrunk, which takes the grain out
FPS = 10
STREET, REVEAL, HELD, WIPE, LAST = 8, 8, 12, 24, 8  # frames of each part
FOOT = 56
DARK, WHITE, FAINT = (17, 20, 26), (255, 255, 255), (168, 176, 190)
ALPHA = 0.6
LARGE, SMALL = ImageFont.load_default(21), ImageFont.load_default(15)
CLASSES_NAMED = 7


def main() -> None:
    count = STREET + REVEAL + HELD + WIPE + LAST
    graph = Path(sys.argv[1]) / f"{STEM}.nvinfer.onnx"
    int8 = graph.with_suffix(".int8.onnx")
    frames = [scene.image for scene in scenes.make_clip(HELD_OUT, count, DRAWN.height, DRAWN.width)]
    fp32_answers, int8_answers = (list(answered(path, frames)) for path in (graph, int8))
    record = matching_record(int8, digest_of(int8))
    assert record is not None
    small = [shrunk(frame) for frame in frames]
    first, *others = (
        Image.fromarray(one) for one in loop(small, fp32_answers, int8_answers, int8_in_words(record))
    )
    path = HERE / "loop.webp"
    first.save(path, save_all=True, append_images=others, duration=1000 // FPS, loop=0, quality=62, method=4)
    print(f"{path}: {path.stat().st_size:,} bytes, {count} frames")


def shrunk(frame: Frame) -> Frame:
    small = cv2.resize(frame, (SHOWN.width, SHOWN.height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def answered(graph: Path, frames: list[Frame]) -> Iterator[Segmentation]:
    with open_session(graph) as session:
        for answer in segment_many(session, frames):
            labels = cv2.resize(answer.labels, (SHOWN.width, SHOWN.height), interpolation=cv2.INTER_NEAREST)
            yield Segmentation(np.asarray(labels, np.uint8), answer.classes)


def int8_in_words(record: ArtifactRecord) -> str:
    fp32, int8 = record.ledger
    assert fp32.miou is not None
    assert int8.miou is not None
    return f"{int8.macs['int8']:.0%} of the multiplications in INT8, mIoU {100 * (int8.miou - fp32.miou):+.2f} points"


def loop(
    frames: list[Frame], fp32: list[Segmentation], int8: list[Segmentation], words: str
) -> Iterator[Frame]:
    for index, (frame, one, other) in enumerate(zip(frames, fp32, int8, strict=True)):
        overlay, other_overlay = (each.overlay(frame, ALPHA, legend=False) for each in (one, other))
        at = index - STREET
        if at < 0:
            yield footed(frame, "A made street", "drawn by code, with exact labels", None)
            continue
        if at < REVEAL + HELD:
            cut = round(SHOWN.width * eased(min(1.0, (at + 1) / REVEAL)))
            yield footed(
                joined(overlay, frame, cut),
                "segdeploy run demo-b0 street.mp4",
                "19 classes, no GPU, no PyTorch",
                one,
            )
            continue
        share = min(1.0, (at - REVEAL - HELD + 1) / WIPE)
        cut = round(SHOWN.width * (1 - eased(share)))
        picture = joined(overlay, other_overlay, cut)
        yield footed(tagged(picture, cut), "segdeploy quantize", words, one)


def eased(share: float) -> float:
    return share * share * (3 - 2 * share)


def joined(left: Frame, right: Frame, cut: int) -> Frame:
    picture = right.copy()
    picture[:, :cut] = left[:, :cut]
    if 0 < cut < picture.shape[1]:
        picture[:, max(cut - 1, 0) : cut + 1] = WHITE
    return picture


def tagged(picture: Frame, cut: int) -> Frame:
    """Say on each side of the line what it shows."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for text, left, room in (("FP32", cut - 74, cut > 90), ("INT8", cut + 14, picture.shape[1] - cut > 90)):
        if room:
            draw.rounded_rectangle((left, 14, left + 60, 44), 6, fill=DARK)
            draw.text((left + 30, 29), text, WHITE, LARGE, anchor="mm")
    return np.asarray(image)


def footed(picture: Frame, heading: str, words: str, shown: Segmentation | None) -> Frame:
    """Put heading, words and the largest classes' colours below the picture."""
    height, width = picture.shape[:2]
    image = Image.new("RGB", (width, height + FOOT), DARK)
    image.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(image)
    draw.text((16, height + 19), heading, WHITE, LARGE, anchor="lm")
    draw.text((16, height + 42), words, FAINT, SMALL, anchor="lm")
    if shown is not None:
        left, end = width - 16, 16 + draw.textlength(heading, LARGE) + 24
        for name in list(shown.areas())[:CLASSES_NAMED]:
            wide = round(draw.textlength(name, SMALL))
            if left - wide - 20 < end:
                break
            left -= wide
            draw.text((left, height + 19), name, WHITE, SMALL, anchor="lm")
            left -= 20
            colour = shown.classes.colours[shown.classes.names.index(name)]
            draw.rounded_rectangle((left, height + 12, left + 14, height + 26), 3, fill=colour)
            left -= 14
    return np.asarray(image)


if __name__ == "__main__":
    main()
