"""Chooses how a frame goes through a graph to be scored: whole, in windows, at several scales, mirrored, spoilt."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from segdeploy.assess.evaluate.corruptions import corrupt
from segdeploy.assess.evaluate.evaluate import Predict, whole_image
from segdeploy.assess.evaluate.windows import multi_scale, sliding_window
from segdeploy.errors import RequestError
from segdeploy.model.card import card_called
from segdeploy.picture.image import Frame, LabelMap
from segdeploy.run.session import Session
from segdeploy.size import Size


@dataclass(frozen=True)
class Mode:
    fit: str = "stretch"
    kernel: str | None = None  # None: as the model was trained; in windows linear, as in mmsegmentation
    windows: bool = False
    stride: Size | None = None  # None: the card's, or two thirds of the window
    frame: Size | None = None  # frames are first resized into it, aspect kept; None: the card's, or not
    scales: tuple[float, ...] = ()
    flip: bool = False

    @property
    def through_windows(self) -> bool:
        return self.windows or bool(self.scales) or self.flip

    def settled(self, session: Session) -> Mode:
        """Fill in the card's facts about windows where the user set none; refuses options that do not fit."""
        if not self.through_windows:
            if self.stride or self.frame:
                raise RequestError(
                    "--stride and --frame are for sliding windows; ask for those with --windows"
                )
            return self
        if self.fit != "stretch":
            raise RequestError(
                f"--fit {self.fit} is for whole images; in windows frames keep their aspect anyway: leave it out"
            )
        name = session.signature.card
        card = card_called(name)
        stride = self.stride or (card.window_stride if card else None)
        frame = self.frame or (card.window_frame if card else None)
        return Mode(self.fit, self.kernel or "linear", True, stride, frame, self.scales, self.flip)

    def predictor(self, session: Session) -> Predict:
        mode = self.settled(session)
        if not mode.through_windows:
            return whole_image(session, mode.fit, mode.kernel)
        frame, kernel = mode.frame or 1.0, mode.kernel or "linear"
        if mode.scales or mode.flip:
            return multi_scale(session, mode.scales or (1.0,), mode.flip, mode.stride, frame, kernel)
        return sliding_window(session, mode.stride, frame, kernel)

    def spelled(self, session: Session) -> str:
        mode = self.settled(session)
        if not mode.through_windows:
            return f"whole image, {mode.fit}, {mode.kernel or session.signature.resize}"
        words = f"windows of {session.signature.size}, stride {mode.stride or 'two thirds'}, {mode.kernel}"
        words += f", frames in {mode.frame}" if mode.frame else ""
        words += f", scales {' '.join(f'{scale:g}' for scale in mode.scales)}" if mode.scales else ""
        return words + (", flipped too" if mode.flip else "")


def spoilt(predict: Predict, corruption: str, severity: int) -> Predict:
    """Corrupt frames before `predict`; a frame's own pixels are the seed, so runs in any order give the same."""

    def through(frame: Frame) -> LabelMap:
        return predict(corrupt(frame, corruption, severity, zlib.crc32(frame.tobytes())))

    return through
