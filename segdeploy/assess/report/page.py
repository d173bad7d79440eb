"""Makes the page, with sections in the order of a reader's questions; a section without data says how to make some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from segdeploy.assess.report import accuracy, environment, precisions, speed, training
from segdeploy.assess.report.charts import STYLE
from segdeploy.assess.report.findings import Findings, FoundFile
from segdeploy.assess.report.markup import section
from segdeploy.errors import RequestError
from segdeploy.version import __version__

HERE = Path(__file__).parent
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
Section = tuple[str, str, Callable[[Findings], Sequence[str]]]
SECTIONS: tuple[Section, ...] = (
    ("ledger", "Ledger", accuracy.ledger),
    ("training", "Training", training.trainings),
    ("accuracy", "Accuracy", accuracy.scores),
    ("slider", "Original, FP32, INT8", accuracy.slider),
    ("worst", "Worst frames", accuracy.worst),
    ("latency", "Latency", speed.latency),
    ("waterfall", "Where the time goes", speed.end_to_end),
    ("precision", "Precision of each layer", precisions.maps),
    ("environment", "Environment", environment.environment_tables),
)


UNLIKE_OURS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def readable(findings: Findings) -> Findings:
    """Leave out each evaluation, measurement and training that cannot be shown by itself, and say so in `faults`."""
    faults = list(findings.faults)

    def shown(found: FoundFile, alone: Findings) -> bool:
        try:
            for _, _, show in SECTIONS:
                show(alone)
        except UNLIKE_OURS as error:
            faults.append(
                f"{found.path} is not as segdeploy writes it ({error!r}); write it again, or remove it"
            )
            return False
        return True

    folder = findings.folder
    evaluations = [one for one in findings.evaluations if shown(one, Findings(folder, evaluations=(one,)))]
    benches = [one for one in findings.benches if shown(one, Findings(folder, benches=(one,)))]
    trainings = [one for one in findings.trainings if shown(one, Findings(folder, trainings=(one,)))]
    return replace(
        findings,
        evaluations=tuple(evaluations),
        benches=tuple(benches),
        trainings=tuple(trainings),
        faults=tuple(faults),
    )


def page_of(findings: Findings) -> str:
    try:
        body = "".join(section(name, title, show(findings)) for name, title, show in SECTIONS)
    except UNLIKE_OURS as error:
        raise RequestError(
            f"a file in {findings.folder} is not as segdeploy writes it ({error!r}); write it again, or remove it"
        ) from error
    links = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title, _ in SECTIONS)
    title = f"segdeploy report: {findings.folder.resolve().name}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>
{(HERE / "page.css").read_text()}{STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
<header>
<h1>{escape(title)}</h1>
<p class="note">{escape(summary(findings))}</p>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main id="main">{body}</main>
<footer><p class="note">Made by segdeploy {__version__}; this file holds all it shows.</p></footer>
<script>
{(HERE / "page.js").read_text()}</script>
</body>
</html>
"""


def summary(findings: Findings) -> str:
    counted = (
        (len(findings.records), "record"),
        (len(findings.evaluations), "evaluation"),
        (len(findings.benches), "benchmark file"),
        (len(findings.trainings), "training"),
    )
    words = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counted)
    return f"{words}; {len(findings.faults)} left out, which the ledger names" if findings.faults else words
