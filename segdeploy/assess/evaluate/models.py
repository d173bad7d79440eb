"""Scores models side by side on one data set, on its frames and on spoilt ones.

With an output folder, each model's unfinished work is kept there until the report of all is written, so that a stopped
run can go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segdeploy.assess.evaluate.corruptions import SEVERITIES, demand_corruption, robustness_table
from segdeploy.assess.evaluate.evaluate import Evaluation, Predict, Unfinished, evaluate, evaluation_key, look
from segdeploy.assess.evaluate.modes import Mode, spoilt
from segdeploy.assess.evaluate.report import results_as_json, write_pictures
from segdeploy.assess.evaluate.robustness import Spoilt
from segdeploy.assess.evaluate.spread import counted_by, order_to_count
from segdeploy.datasets.dataset import Dataset
from segdeploy.errors import RequestError
from segdeploy.files import digest_of, make_folder, write_text
from segdeploy.model.card import ModelCard
from segdeploy.model.signature import Signature
from segdeploy.model.tuned import tuned_path
from segdeploy.prove.opening import choose_opening, open_chosen
from segdeploy.run.address import ModelAddress
from segdeploy.run.crews import crew_for, threads_of_each
from segdeploy.run.hands import Hands
from segdeploy.run.peek import signature_in
from segdeploy.run.triton.session import TritonSession
from segdeploy.size import Size
from segdeploy.special_files import is_file

# Takes a number of images and a title; gives a context with a function to call once per image.
Counted = Callable[[int, str], AbstractContextManager[Callable[[], None]]]

WHOLE_IMAGE = Mode()


@dataclass(frozen=True)
class EvaluationRequest:
    models: tuple[Path | ModelAddress, ...]
    dataset: Dataset
    mode: Mode = WHOLE_IMAGE
    card: ModelCard | None = None  # describes foreign graphs
    provider: str | None = None
    workers: int = 2  # threads that decode
    output: Path | None = None  # for evaluation.json, pictures, and a stopped run's unfinished work
    report: Path | None = None  # the JSON alone
    worst: int = 8  # frames to draw for each model
    corruptions: tuple[str, ...] = ()  # also scored on
    severities: tuple[float, ...] = SEVERITIES
    card_name: str | None = None  # of `card`, for other processes
    processes: int | None = None  # that count; None: this one alone, or as many as fit on a cluster
    ray: str | None = None  # a cluster's address, or `local`
    precision: str | None = None  # None: the graphs' own
    as_exported: bool = False  # also where they were tuned
    tell: Callable[[str], None] = lambda words: None  # gets what has to be known of how a model runs
    size: Size | None = None  # of several, the one to score at; None: for each frame the one that fits

    @property
    def is_spread_out(self) -> bool:
        """Tell whether other processes count: they run graphs as they are."""
        return self.ray is not None or (self.processes or 1) > 1

    def demand_sense(self) -> None:
        """Refuse wrong options and models that do not fit, the last one too, before any slow step."""
        if self.precision is not None and self.is_spread_out:
            raise RequestError(
                f"--precision {self.precision} is for one process, and several were asked for; leave one of them out"
            )
        if self.worst < 0:
            raise RequestError(f"{self.worst} worst frames cannot be drawn; expected 0 or more")
        for name in self.corruptions:
            for severity in self.severities:
                demand_corruption(name, severity)
        tell_apart(self.models)
        if self.ray is not None or (self.processes or 1) > 1:
            demand_files_alone(self.models)
        for model in self.models:
            self.dataset.lookup_from(signature_in(model, self.card).labels)


@dataclass(frozen=True)
class EvaluatedModels:
    """Holds the scores by model; the others are compared with the first."""

    scores: dict[str, Evaluation]
    facts: dict[str, dict[str, Any]]  # of each model and how it was run
    robustness: dict[str, dict[str, Any]]  # on spoilt frames, where these were asked for
    mode: Mode

    def report(self) -> dict[str, Any]:
        options = {"fit": self.mode.fit, "resize": self.mode.kernel}
        report = results_as_json(self.scores, self.facts, options)
        if self.robustness:
            report["robustness"] = self.robustness
        return report

    def as_text(self) -> str:
        """Write the report as JSON."""
        return json.dumps(self.report(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Candidate:
    """Holds an open model, and how it is scored."""

    name: str
    signature: Signature
    predict: Predict
    digest: str
    mode: str  # in words
    key: dict[str, str]  # identifies a stopped run's unfinished work
    way: str  # how it runs, in words
    callers: int = 1  # that its session serves at once


def evaluate_models(
    request: EvaluationRequest, counted: Counted = lambda total, what: nullcontext(lambda: None)
) -> EvaluatedModels:
    """Score each model on the frames, and then on spoilt ones; write the report where there is an output folder."""
    request.demand_sense()
    for folder in (request.output, request.report and request.report.parent):
        if folder:  # fails now rather than after an hour
            make_folder(folder)
    named = dict(zip(tell_apart(request.models), request.models, strict=True))
    scores, facts = {}, {}
    for name, model in named.items():
        with open_candidate(request, name, model) as candidate, spread_out(request, model) as hands:
            scores[name] = score_frames(request, candidate, counted, hands)
        facts[name] = facts_in_report(candidate)
    robustness = {}
    for name, model in named.items() if request.corruptions else ():
        quiet = replace(request, tell=lambda words: None)
        with open_candidate(quiet, name, model) as candidate, spread_out(request, model) as hands:
            robustness[name] = score_spoilt_frames(request, candidate, counted, hands)
    done = EvaluatedModels(scores, facts, robustness, request.mode)
    if request.report:
        write_text(request.report, done.as_text())
    if request.output:
        write_text(request.output / "evaluation.json", done.as_text())
        for name in named:
            unfinished_path(request.output, name).unlink(missing_ok=True)
            spoilt_path(request.output, name).unlink(missing_ok=True)
    return done


@contextmanager
def open_candidate(request: EvaluationRequest, name: str, model: Path | ModelAddress) -> Iterator[Candidate]:
    way = choose_opening(
        model,
        provider=request.provider,
        precision=request.precision,
        as_exported=request.as_exported or request.is_spread_out,
        several_callers=True,
        tell=request.tell,
    )
    if request.is_spread_out:
        say_tuned_is_left_out(request, model)
    with open_chosen(way, card=request.card, tell=request.tell, size=request.size) as session:
        digest = session.digest if isinstance(session, TritonSession) else digest_of(Path(str(model)))
        mode = request.mode.spelled(session)
        key = evaluation_key(digest, request.dataset, mode, way.words) | (
            {"size": str(request.size)} if request.size else {}
        )
        predict = request.mode.predictor(session)
        yield Candidate(name, session.signature, predict, digest, mode, key, way.words, way.streams)


def say_tuned_is_left_out(request: EvaluationRequest, model: Path | ModelAddress) -> None:
    """Say that processes count with the graph as it was exported, where it was tuned and nothing else is asked for."""
    asked = request.as_exported or request.provider is not None
    if isinstance(model, Path) and is_file(tuned_path(model)) and not asked:
        request.tell(
            f"{model.name} was tuned, and several processes count with the graph as it was exported; to score it as it"
            " was tuned, leave --processes and --ray out"
        )


@contextmanager
def spread_out(request: EvaluationRequest, model: Path | ModelAddress) -> Iterator[Hands | None]:
    """Give the hands of the processes that count, or None where this one does."""
    if not request.is_spread_out:
        yield None
        return
    model = Path(str(model))  # no address is let in here
    threads = threads_of_each(model, request.provider, request.processes, request.ray, None)
    order = order_to_count(
        model, request.dataset, request.mode, request.card_name, request.provider, threads, request.size
    )
    crew = crew_for(
        order, model, provider=request.provider, count=request.processes, ray=request.ray, threads=threads
    )
    try:
        yield Hands(crew)
    finally:
        crew.close()


def score_frames(
    request: EvaluationRequest, model: Candidate, counted: Counted, hands: Hands | None = None
) -> Evaluation:
    output, dataset, labels = request.output, request.dataset, model.signature.labels
    unfinished = Unfinished(unfinished_path(output, model.name), model.key) if output else None
    with counted(len(dataset), model.name) as advance:
        result = evaluate(
            model.predict,
            dataset,
            labels,
            workers=request.workers,
            callers=model.callers,
            progress=advance,
            unfinished=unfinished,
            count=counted_by(hands, dataset) if hands else None,
        )
    if output:
        worst = result.sums.worst(request.worst)
        sights = (look(model.predict, dataset, labels, index) for index in worst)
        write_pictures(result, sights, output, stem_of(model.name))
    return result


def score_spoilt_frames(
    request: EvaluationRequest, model: Candidate, counted: Counted, hands: Hands | None = None
) -> dict[str, Any]:
    """Score every corruption at every severity by mIoU, with means."""
    dataset, names = request.dataset, request.corruptions
    severities = [int(severity) for severity in request.severities]
    done = Spoilt(spoilt_path(request.output, model.name), model.key) if request.output else None
    with counted(len(dataset) * len(names) * len(severities), f"{model.name}, spoilt") as advance:

        def score(corruption: str, severity: int) -> float:
            def scored(unfinished: Unfinished | None) -> float:
                result = evaluate(
                    spoilt(model.predict, corruption, severity),
                    dataset,
                    model.signature.labels,
                    workers=request.workers,
                    callers=model.callers,
                    progress=advance,
                    unfinished=unfinished,
                    count=counted_by(hands, dataset, corruption, severity) if hands else None,
                )
                return result.scores.miou

            if done is None:
                return scored(None)
            if done.has(corruption, severity):
                for _ in range(len(dataset)):
                    advance()
            return done.score(corruption, severity, scored)

        return robustness_table(score, names, severities)


def facts_in_report(model: Candidate) -> dict[str, Any]:
    return {
        "digest": model.digest,
        "card": model.signature.card,
        "interface": model.signature.interface,
        "size": model.signature.size_in_words,
        "mode": model.mode,
        "way": model.way,
    }


def demand_files_alone(models: Sequence[Path | ModelAddress]) -> None:
    """Refuse to share a model on a server among processes, which have one server to ask all the same."""
    for model in models:
        if isinstance(model, ModelAddress):
            raise RequestError(
                f"--ray and --processes are for files, and {model} is on a server; leave them out"
            )


def tell_apart(models: Sequence[Path | ModelAddress]) -> list[str]:
    """Name the models by their file names if these differ, else by their paths as given."""
    for names in ([model.name for model in models], [str(model) for model in models]):
        if len(set(names)) == len(names):
            return names
    raise RequestError("a model is given twice; each is scored once")


def unfinished_path(output: Path, name: str) -> Path:
    return output / f"{stem_of(name)}.unfinished"


def spoilt_path(output: Path, name: str) -> Path:
    return output / f"{stem_of(name)}.spoilt.unfinished"


def stem_of(name: str) -> str:
    return name.replace("/", "_")
