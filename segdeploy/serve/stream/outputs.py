"""Turns OUTPUT into one place per source, and refuses it before any work where it cannot be written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from segdeploy.errors import RequestError
from segdeploy.files import cannot_be_written, landing
from segdeploy.picture.video_location import is_remote, without_credentials
from segdeploy.picture.video_writing import CONTAINERS, container_of
from segdeploy.serve.stream.sources import GST, RTSP, STDIN, Stream
from segdeploy.shell import shell_word
from segdeploy.special_files import kind_at

NAME = "{name}"
ENDING = ".overlay.mp4"


def is_clip(output: str) -> bool:
    return is_remote(output) or Path(output).suffix.lower() in CONTAINERS


def output_places(output: str, streams: Sequence[Stream]) -> list[str]:
    """Give each source's place: the clip, the address, or `<name>.overlay.mp4` in the folder `output`."""
    names = short_names([stream.path or stream.name for stream in streams])
    if NAME in output:
        found = [output.replace(NAME, name) for name in names]
    elif is_clip(output):
        found = [output] * len(streams)
        if len(streams) > 1:
            better = str(Path(output).with_stem(NAME)) if not is_remote(output) else f"{output}/{NAME}"
            raise RequestError(
                f"{len(streams)} sources do not go into one {without_credentials(output)}; name a folder, or:"
                f" -o {shell_word(without_credentials(better))}"
            )
    else:
        with cannot_be_written(Path(output)):
            if Path(output).suffix and kind_at(Path(output)) != "a folder":
                container_of(Path(output))
        found = [str(Path(output) / (name + ENDING)) for name in names]
    for place in found:
        if is_remote(place):
            demand_server(place)
        else:
            container_of(Path(place))
            demand_other(landing(Path(place)), streams)
    return found


def demand_server(place: str) -> None:
    told = without_credentials(place)
    if not place.startswith(RTSP):
        raise RequestError(f"{told} is not an address to publish to; expected one as in {RTSP[0]}server/live")
    try:
        parts = urlsplit(told)
        named = parts.hostname and parts.port != 0
    except ValueError:  # an open bracket, or a port above 65535
        named = None
    if not named:
        raise RequestError(f"{told} names no server; expected an address as in {RTSP[0]}server:8554/live")


def demand_other(place: Path, streams: Sequence[Stream]) -> None:
    for stream in streams:
        if stream.path is not None and place.exists() and place.samefile(stream.path):
            raise RequestError(f"{place} is both the input and the output; name another one with -o")


def short_names(names: Sequence[Path | str]) -> list[str]:
    """Make file names from the last words of paths and addresses; the second of one name ends in `-2`."""
    found: list[str] = []
    for name in names:
        word = taken = short_name(name)
        number = 2
        while taken in found:
            taken, number = f"{word}-{number}", number + 1
        found.append(taken)
    return found


def short_name(name: Path | str) -> str:
    if name == STDIN:
        return "stdin"
    if isinstance(name, str) and name.startswith(GST):
        return "pipeline"
    last = str(name).split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    word = re.sub(r"[^\w.-]+", "_", Path(last).stem if Path(name).suffix else last)
    return word if word.strip(".") else "stream"  # dots alone would name a folder above
