"""Writes a folder as one thing, which says what segdeploy wrote, so that nothing else is ever replaced or removed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from segdeploy import files
from segdeploy.errors import OutputError
from segdeploy.files import digest_of
from segdeploy.model.typed_json import WrongField, from_json
from segdeploy.untrusted import Unreadable, read_json
from segdeploy.version import __version__

NAME = "rendered.json"


@dataclass(frozen=True)
class Manifest:
    files: dict[str, str] = field(default_factory=dict)  # the digest of each, by its place in the folder
    segdeploy: str = __version__

    def as_text(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Read what is known to be ours in `folder`: nothing where no manifest is there, or none that can be read."""
    path = folder / NAME
    with suppress(Unreadable, WrongField):
        return from_json(Manifest, read_json(path))
    return Manifest()


def write_folder(output: Path, contents: Mapping[str, bytes | Path]) -> None:
    """Write `contents` (the place in the folder to bytes, or to the file to copy) all together or not at all."""
    in_place = {name for name, content in contents.items() if is_same(content, output / name)}
    written = {name: content for name, content in contents.items() if name not in in_place}
    known = demand_ours(output, written)
    ours = {name: digest for name, digest in known.files.items() if name in in_place}
    names = [*written, NAME]
    with files.replacing_together(*(output / name for name in names)) as (*parts, last):
        for name, part in zip(written, parts, strict=True):
            write_part(written[name], part, output / name)
            ours[name] = files.digest_of(part)
        write_part(Manifest(ours).as_text().encode(), last, output / NAME)
    remove_stale(output, known, contents.keys())


def demand_ours(folder: Path, written: Mapping[str, bytes | Path]) -> Manifest:
    """Give the manifest that `folder` has, and refuse to write over what segdeploy did not make there.

    What has the very content that it is to get is nobody's loss: a writer that was killed half way is followed by one
    that finishes its work.
    """
    known = read_manifest(folder)
    for name, content in written.items():
        path = folder / name
        if name == NAME or not path.is_file():
            continue
        if (digest := digest_of(path)) == known.files.get(name) or digest == digest_of_content(content):
            continue
        was = (
            "was changed since segdeploy wrote it" if name in known.files else "is not of segdeploy's making"
        )
        raise OutputError(
            f"{path} {was}, and would be replaced; move it away, or name another folder with -o"
        )
    return known


def digest_of_content(content: bytes | Path) -> str:
    return digest_of(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()


def remove_stale(folder: Path, known: Manifest, written: Collection[str]) -> None:
    """Remove what segdeploy wrote into `folder` the last time, is as it was, and is no part of it any more."""
    for name in known.files.keys() - written:
        path = folder / name
        with suppress(OSError, ValueError):  # it stays; nothing that was written now names it
            inside = path.resolve().relative_to(folder.resolve()) == Path(
                name
            )  # no name leads out of it, no link
            if inside and digest_of(path) == known.files[name]:
                path.unlink()
                remove_empty(path.parent, folder)


def remove_empty(inner: Path, folder: Path) -> None:
    """Remove `inner`, and what is above it in `folder`, as far as nothing is in them any more."""
    while inner != folder:
        inner.rmdir()  # which fails where it holds something
        inner = inner.parent


def is_same(content: bytes | Path, place: Path) -> bool:
    """Tell whether a file that is to be copied lies in its place already."""
    return isinstance(content, Path) and place.exists() and place.samefile(content)


def write_part(content: bytes | Path, part: Path, place: Path) -> None:
    with files.cannot_be_written(place):
        if isinstance(content, Path):
            shutil.copyfile(content, part)
        else:
            part.write_bytes(content)
