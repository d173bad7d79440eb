"""Opens a data set: finds its images and their label files below a root, by the layouts that the table knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from segdeploy.datasets.dataset import Dataset, Pair, indices
from segdeploy.datasets.known import DATASETS, FOLDER, Layout, names_of_datasets
from segdeploy.datasets.mapping import read_mapping
from segdeploy.errors import EvaluationError, RequestError
from segdeploy.model.labels import read_labels, read_yaml
from segdeploy.picture.image import IMAGE_SUFFIXES
from segdeploy.shipped import folder
from segdeploy.special_files import why_no_file
from segdeploy.untrusted import Unreadable, read_limited

Files = dict[str, Path]  # by their names without the ending
MOST_LISTED = 64 << 20  # bytes
SplitOf = Callable[[str], str] | None


def open_dataset(name: str, root: Path, split: str | None = None, mapping: Path | None = None) -> Dataset:
    """Open the data set `name` below `root`; `folder` needs a `mapping` file.

    `split` None takes the table's split for scoring.
    """
    if name not in names_of_datasets():
        raise RequestError(f"no data set is called {name!r}; known: {', '.join(names_of_datasets())}")
    if (name == FOLDER) != (mapping is not None):
        raise RequestError(
            "--mapping FILE.yaml and --dataset folder go together; the file says `ids: {0: road, 255: ignore}`, and "
            "`images` and `labels` where the folders have other names"
        )
    if not root.is_dir():
        raise EvaluationError(f"there is no folder {root}")
    return open_known(name, root, split) if mapping is None else open_folder(root, split, mapping)


def open_known(name: str, root: Path, split: str | None) -> Dataset:
    known = DATASETS[name]
    split = split or known.scored_on
    layout, pairs = find_pairs(known.layouts, root, split, known.split_of, known.splits)
    labels = read_labels(known.labels)
    facts = read_yaml(folder("models") / "labels" / f"{known.labels}.yaml")
    places = range(len(labels.names))
    if layout.values == "places":
        ids = dict(enumerate(places)) | {labels.ignore: labels.ignore}
    else:  # 255 is no class in any of them: in Cityscapes it is what the licence plate's −1 becomes in a byte
        ids = dict.fromkeys((*facts.get("not_counted", ()), 255), labels.ignore)
        ids |= dict(zip(labels.ids or places, places, strict=True))
    index = indices(labels.names)
    colours = {tuple(entry["colour"]): index[entry["is"]] for entry in facts.get("originals", ())}
    return Dataset(name, root, split, labels, pairs, ids, colours, facts.get("from_cityscapes", {}))


def open_folder(root: Path, split: str | None, mapping: Path) -> Dataset:
    said = read_mapping(mapping)
    if (split is not None) != said.layout.has_splits:
        raise RequestError(
            f"--split NAME and a folder with {{split}} in {mapping.name} go together; its folders: "
            f"{said.layout.images}, {said.layout.labels}"
        )
    name, split = mapping.stem, split or ""
    _, pairs = find_pairs((said.layout,), root, split)
    return Dataset(
        name, root, split, said.labels, pairs, said.ids, counted_as=said.counted_as, mapping=mapping
    )


def find_pairs(
    layouts: Sequence[Layout],
    root: Path,
    split: str,
    split_of: SplitOf = None,
    splits: Sequence[str] = (),
) -> tuple[Layout, tuple[Pair, ...]]:
    """Return the first layout whose label files are found, with its pairs; `splits` are named in the error."""
    for layout in layouts:
        truths = find_truths(layout, root, split, split_of)
        if truths:
            images = find_pictures(layout, root, split, split_of)
            images = {stem: path for stem, path in images.items() if path not in truths.values()}
            return layout, pair_up(
                images, truths, f"{layout.label_folder(root, split)}/*{layout.label_ending}"
            )
    expected = ", or ".join(layout.in_words(root, split) for layout in layouts)
    others = f"; its splits are {', '.join(splits)}" if splits and split not in splits else ""
    raise EvaluationError(f"no label files were found: expected {expected}{others}")


def find_pictures_to_calibrate_on(root: Path) -> list[Path]:
    """List a known data set's images to calibrate on, if `root` is its root; none for any other folder.

    Label files are images too, and scored images should not be calibrated on. An ending such as .png does not identify
    a data set: there, its label files must be found as well.
    """
    for known in DATASETS.values():
        for layout in known.layouts:
            for split in (known.calibrated_on, *known.splits):
                if not layout.image_ending.startswith(".") or find_truths(
                    layout, root, split, known.split_of
                ):
                    pictures = find_pictures(layout, root, split, known.split_of)
                    if pictures:
                        return list(pictures.values())
    return []


def find_pictures(layout: Layout, root: Path, split: str, split_of: SplitOf) -> Files:
    return of_split(
        find(layout.image_folder(root, split), layout.image_ending), layout, root, split, split_of
    )


def find_truths(layout: Layout, root: Path, split: str, split_of: SplitOf) -> Files:
    return of_split(
        find(layout.label_folder(root, split), layout.label_ending), layout, root, split, split_of
    )


def of_split(found: Files, layout: Layout, root: Path, split: str, split_of: SplitOf) -> Files:
    if layout.listed:
        names = names_listed(layout.list_file(root, split))
        return {stem: path for stem, path in found.items() if stem in names}
    if split_of is None or layout.has_splits:
        return found
    return {stem: path for stem, path in found.items() if split_of(stem) == split}


def names_listed(path: Path) -> set[str]:
    """Read the names of a split's images; none where there is no such list."""
    if not path.is_file():
        return set()
    try:
        return set(read_limited(path, MOST_LISTED).decode(errors="replace").split())
    except Unreadable as error:
        raise EvaluationError(f"{path} {error}") from error


def find(place: Path, ending: str) -> Files:
    """Find files below `place`, by their names without `ending`; an empty ending finds images, without their suffix."""
    found: Files = {}
    for path in sorted(place.rglob("*")):
        if path.name.endswith(ending) if ending else path.suffix.lower() in IMAGE_SUFFIXES:
            name = path.relative_to(place).as_posix()
            stem = name.removesuffix(ending or path.suffix)
            if stem in found:
                raise EvaluationError(f"{found[stem]} and {path} are two images of one name; rename one")
            found[stem] = path
    return found


def pair_up(images: Files, truths: Files, label_file: str) -> tuple[Pair, ...]:
    """Pair images with label files; `label_file` is a label file's path with * for an image's name."""
    for these, those in ((images, truths), (truths, images)):
        alone = sorted(these.keys() - those.keys())
        if alone:
            partner = f"labels; expected {label_file.replace('*', alone[0])}" if these is images else "image"
            raise EvaluationError(
                f"{len(alone)} of {len(these)} files have no partner: {these[alone[0]]} has no {partner}"
            )
    for path in (*images.values(), *truths.values()):
        if (why := why_no_file(path)) is not None:
            raise EvaluationError(f"{path} cannot be read: {why}")
    return tuple(Pair(images[stem], truths[stem]) for stem in sorted(images))
