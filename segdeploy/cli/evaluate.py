from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.cli.arguments import add_fit, add_provider
from segdeploy.datasets.known import default_splits, names_of_datasets

if TYPE_CHECKING:
    from segdeploy.datasets.dataset import Dataset
    from segdeploy.measure.evaluate.evaluate import Evaluation
    from segdeploy.measure.evaluate.modes import Mode
    from segdeploy.model.card import ModelCard
    from segdeploy.model.labels import Labels


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        metavar="MODEL",
        type=Path,
        nargs="+",
        help="an .onnx or an .engine; further ones are compared with the first",
    )
    parser.add_argument(
        "--dataset", choices=names_of_datasets(), required=True, help="any two folders are `folder`"
    )
    parser.add_argument("--root", metavar="DIR", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--split", metavar="NAME", help=f"default: {default_splits('scored_on')}")
    parser.add_argument("--mapping", metavar="YAML", type=Path, help="which id is which class, for folder")
    parser.add_argument("--limit", type=int, metavar="N", help="score this many images, evenly spread")
    parser.add_argument(
        "--workers", type=int, metavar="N", default=2, help="threads that decode (default: 2)"
    )
    parser.add_argument("--card", metavar="NAME", help="describes graphs from elsewhere: a card, or a .yaml")
    add_fit(parser)
    add_provider(parser)
    parser.add_argument(
        "--windows",
        action="store_true",
        help="sliding windows of the graph's size, logits averaged; as the card says",
    )
    parser.add_argument(
        "--stride", metavar="HxW", help="of the windows (default: the card's, or two thirds of one)"
    )
    parser.add_argument(
        "--frame", metavar="HxW", help="resize frames into this first, aspect kept (default: the card's)"
    )
    parser.add_argument(
        "--scales", metavar="LIST", help="average over scales, as in 0.5,0.75,1,1.25,1.5,1.75"
    )
    parser.add_argument("--flip", action="store_true", help="average over the mirrored frame too")
    parser.add_argument(
        "--corruptions",
        metavar="LIST",
        help="also score on spoilt frames: all, or names as in fog,shot_noise",
    )
    parser.add_argument("--severities", metavar="LIST", help="of corruptions (default: 1,2,3,4,5)")
    parser.add_argument("--json", metavar="FILE", help="write JSON there; - prints it instead of the tables")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        help="write evaluation.json and pictures; a stopped run goes on there",
    )
    parser.add_argument("--worst", type=int, metavar="N", default=8, help="worst frames to draw (default: 8)")


def execute(arguments: argparse.Namespace) -> int:
    import json

    from segdeploy.datasets.layouts import open_dataset
    from segdeploy.files import make_folder, write_text
    from segdeploy.measure.evaluate.report import as_json, robustness_shown, tables
    from segdeploy.model.card import read_card

    demand(arguments)
    dataset = open_dataset(arguments.dataset, arguments.root, arguments.split, arguments.mapping)
    dataset = dataset.limited(arguments.limit)
    card = read_card(arguments.card) if arguments.card else None
    for model in arguments.models:  # a misfit of the last one is not found out after an hour
        dataset.lookup_from(labels_of(model, card))
    for place in (arguments.output, Path(arguments.json or "-").parent):
        if place:
            make_folder(place)
    results: dict[str, Evaluation] = {}
    facts: dict[str, dict[str, Any]] = {}
    for name, model in zip(names_of(arguments.models), arguments.models, strict=True):
        results[name], facts[name] = evaluate_one(arguments, dataset, model, card, name)
    report = as_json(results, facts, {"fit": arguments.fit, "resize": arguments.resize})
    robustness = {
        name: robustness_of(arguments, dataset, model, card, name)
        for name, model in zip(results, arguments.models, strict=True)
        if arguments.corruptions
    }
    report |= {"robustness": robustness} if robustness else {}
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if arguments.output:
        write_text(arguments.output / "evaluation.json", text)
        for name in results:
            left_of(arguments.output, name).unlink(missing_ok=True)
            if arguments.corruptions:
                spoilt_left_of(arguments.output, name).unlink(missing_ok=True)
    if arguments.json == "-":
        print(text, end="")
        return 0
    if arguments.json:
        write_text(Path(arguments.json), text)
    show([*tables(results), *(robustness_shown(name, table) for name, table in robustness.items())])
    return 0


def labels_of(model: Path, card: ModelCard | None) -> Labels:
    """The classes that `model` answers; an engine tells its tensors only where it is loaded."""
    from segdeploy.graph.load import read_graph
    from segdeploy.run.session import open_session

    if model.suffix != ".engine":
        return read_graph(model, card, weights=False).signature.labels
    with open_session(model, card=card) as session:
        return session.signature.labels


def demand(arguments: argparse.Namespace) -> None:
    from segdeploy.errors import RequestError

    for flag, value, least in (("--workers", arguments.workers, 1), ("--worst", arguments.worst, 0)):
        if value < least:
            raise RequestError(f"{flag} {value} is less than {least}")
    if arguments.corruptions:
        corruptions_of(arguments)
    elif arguments.severities is not None:
        raise RequestError("--severities are of corruptions: give --corruptions too, as in --corruptions all")
    if arguments.json not in (None, "-") and not arguments.json.endswith(".json"):
        raise RequestError(f"--json {arguments.json} is neither a .json file nor -")


def evaluate_one(
    arguments: argparse.Namespace, dataset: Dataset, model: Path, card: ModelCard | None, name: str
) -> tuple[Evaluation, dict[str, Any]]:
    from segdeploy.cli.console import counted
    from segdeploy.files import digest_of
    from segdeploy.measure.evaluate.evaluate import Unfinished, evaluate, key_of, look
    from segdeploy.measure.evaluate.report import write_pictures
    from segdeploy.run.session import open_session

    digest, output = digest_of(model), arguments.output
    with open_session(model, provider=arguments.provider, card=card) as session:
        signature = session.signature
        mode = mode_of(arguments)
        predict, options = mode.predictor(session), mode.spelled(session)
        key = key_of(digest, dataset, options, arguments.provider)
        unfinished = Unfinished(left_of(output, name), key) if output else None
        with counted(len(dataset), name) as advance:
            result = evaluate(
                predict,
                dataset,
                signature.labels,
                workers=arguments.workers,
                progress=advance,
                unfinished=unfinished,
            )
        if output:
            worst = result.sums.worst(arguments.worst)
            sights = (look(predict, dataset, signature.labels, index) for index in worst)
            write_pictures(result, sights, output, stem_of(name))
    facts = {
        "digest": digest,
        "card": signature.card,
        "interface": signature.interface,
        "size": str(signature.size),
        "mode": options,
    }
    return result, facts


def mode_of(arguments: argparse.Namespace) -> Mode:
    from segdeploy.measure.evaluate.modes import Mode
    from segdeploy.size import Size

    return Mode(
        arguments.fit,
        arguments.resize,
        arguments.windows,
        Size.parse(arguments.stride) if arguments.stride else None,
        Size.parse(arguments.frame) if arguments.frame else None,
        tuple(numbers(arguments.scales, "--scales")) if arguments.scales else (),
        arguments.flip,
    )


def numbers(text: str, flag: str) -> list[float]:
    from segdeploy.errors import RequestError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(f"{flag} {text!r} is not a list of numbers, as in 0.5,1,1.5") from error


def corruptions_of(arguments: argparse.Namespace) -> tuple[tuple[str, ...], list[int]]:
    from segdeploy.measure.evaluate.corruptions import CORRUPTIONS
    from segdeploy.measure.evaluate.corruptions import demand as demand_corruption

    names = CORRUPTIONS if arguments.corruptions == "all" else tuple(arguments.corruptions.split(","))
    severities = numbers(arguments.severities or "1,2,3,4,5", "--severities")
    for name in names:
        for severity in severities:
            demand_corruption(name, severity)
    return names, [int(severity) for severity in severities]


def robustness_of(
    arguments: argparse.Namespace, dataset: Dataset, model: Path, card: ModelCard | None, name: str
) -> dict[str, Any]:
    from segdeploy.cli.console import counted
    from segdeploy.files import digest_of
    from segdeploy.measure.evaluate.corruptions import robustness_table
    from segdeploy.measure.evaluate.evaluate import Unfinished, evaluate, key_of
    from segdeploy.measure.evaluate.modes import spoilt
    from segdeploy.measure.evaluate.robustness import Spoilt
    from segdeploy.run.session import open_session

    names, severities = corruptions_of(arguments)
    mode = mode_of(arguments)
    with open_session(model, provider=arguments.provider, card=card) as session:
        predict = mode.predictor(session)
        key = key_of(digest_of(model), dataset, mode.spelled(session), arguments.provider)
        done = Spoilt(spoilt_left_of(arguments.output, name), key) if arguments.output else None
        total = len(dataset) * len(names) * len(severities)
        with counted(total, f"{name}, spoilt") as advance:

            def score(corruption: str, severity: int) -> float:
                def scored(unfinished: Unfinished | None) -> float:
                    through = spoilt(predict, corruption, severity)
                    labels, workers = session.signature.labels, arguments.workers
                    result = evaluate(
                        through, dataset, labels, workers=workers, progress=advance, unfinished=unfinished
                    )
                    return result.scores.miou

                if done is None:
                    return scored(None)
                if done.has(corruption, severity):
                    for _ in range(len(dataset)):
                        advance()
                return done.score(corruption, severity, scored)

            return robustness_table(score, names, severities)


def spoilt_left_of(output: Path, name: str) -> Path:
    return output / f"{stem_of(name)}.spoilt.unfinished"


def left_of(output: Path, name: str) -> Path:
    return output / f"{stem_of(name)}.unfinished"


def stem_of(name: str) -> str:
    return name.replace("/", "_")


def names_of(models: list[Path]) -> list[str]:
    """File names where they tell the models apart, and else the paths as they were given."""
    from segdeploy.errors import RequestError

    for names in ([model.name for model in models], [str(model) for model in models]):
        if len(set(names)) == len(names):
            return names
    raise RequestError("a model is given twice; each is scored once")


def show(shown: list[Any]) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a file has no width that lines would have to be folded to
        console = Console(width=max(Console(width=10_000).measure(table).maximum for table in shown))
    for table in shown:
        console.print(table)
