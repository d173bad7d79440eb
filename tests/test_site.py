"""The documentation as a site: what is generated is whole, it builds without a warning, and a browser shows it."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import commands
import error_classes
import known_bad
import lint_findings
import pytest
import python_names
from browser import Page, find_chromium

import segdeploy
from segdeploy import errors
from segdeploy.cli import parser

ROOT = Path(__file__).parent.parent


def verbs_of(top, name="segdeploy"):
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, inner in action.choices.items():
                yield f"{name} {verb}", inner
                yield from verbs_of(inner, f"{name} {verb}")


def test_every_verb_and_flag_has_its_line():
    page = commands.page()
    for name, verb in verbs_of(parser()):
        _, heading, rest = page.partition(f"# {name}\n")
        assert heading, name
        own = re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]
        for action in verb._actions:
            if action.help == argparse.SUPPRESS or action.dest == "help" or not action.option_strings:
                continue
            assert f"`{action.option_strings[-1]}`" in own, (name, action.option_strings)
    assert "%(" not in page


def test_every_name_of_the_package_is_described():
    page = python_names.page()
    for name in segdeploy.__all__:
        assert name == "__version__" or f"### {name}\n" in page, name


def test_every_error_has_a_cause_and_a_cure():
    page = error_classes.page()
    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    assert len(classes) >= 16
    for one in classes:
        own = page.partition(f"## {one.__name__}\n")[2].partition("\n## ")[0]
        assert one is errors.SegdeployError or ("Is raised" in own and "**Cure.**" in own), one.__name__


def test_every_finding_of_the_lint_has_a_line_and_a_source():
    page = lint_findings.page()
    listed = set(re.findall(r"^\| \[?`([a-z0-9-]+)`", page, re.MULTILINE))
    traps = {path.stem for path in (ROOT / "tests/traps").iterdir()}
    clean = {one for one in traps if one.startswith(("clean", "tensors"))}
    assert traps - clean <= listed
    assert page.count("\nSource: ") == len(lint_findings.SOURCES) == page.count("## ")
    assert "| … |" not in page


def test_the_table_of_what_is_wrong_names_its_reports():
    rows = [row for row in known_bad.page().splitlines()[2:] if row]
    assert len(rows) >= 3
    assert all(re.search(r"\| \w[\w-]*/\w[\w-]*#[0-9]+ \|", row) for row in rows)


# ---- the site --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("material", reason="pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium is installed, so no page is opened: apt-get install chromium")
    page = Page(chromium, tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        for address in re.findall(r'(?:src|href)="(https?://[^"]+)"', page.read_text()):
            loaded = re.search(rf'<(?:script|link|img)[^>]*"{re.escape(address)}"', page.read_text())
            assert not loaded, f"{page.name} loads {address}"
    assert not [page for page in site.rglob("*.html") if "<!-- generated" in page.read_text()]


PAGES = ("index", "reference/commands", "reference/lint", "networks/index", "repository/benchmarks/REPORT")
SCHEMES = {"light": "default", "dark": "slate"}
# The least contrast of text against what lies behind it, with the words that have it.
LEAST_CONTRAST = (ROOT / "tests/least_contrast.js").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_is_wider_than_the_screen(site, browser, width):
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 500
    )
    for name in PAGES:
        browser.open(site / f"{name}.html")
        found, inner = browser.ask("[document.documentElement.scrollWidth, window.innerWidth]")
        assert found <= inner == width, (name, found, inner)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(site, browser, scheme):
    """4.5, as WCAG's level AA asks, of every word on the page."""
    browser.prefer(scheme)
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=1440, height=900, deviceScaleFactor=1, mobile=False
    )
    for name in ("index", "tutorials/jetson-orin", "reference/lint"):
        browser.open(site / f"{name}.html")
        browser.until(f"document.body.dataset.mdColorScheme === '{SCHEMES[scheme]}'")
        ratio, words = browser.ask(LEAST_CONTRAST)
        assert ratio >= 4.5, (name, round(ratio, 2), words)


@pytest.mark.slow
def test_keys_lead_to_the_content(site, browser):
    browser.open(site / "index.html")
    browser.press("Tab", 9)
    assert browser.ask("document.activeElement.classList.contains('md-skip')")
    assert browser.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
