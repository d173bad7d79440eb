"""The page from the files that the verbs write: its structure, what it must never hold, and a real browser's view."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from browser import Page, find_chromium

from segdeploy import scenes
from segdeploy.assess.report import accuracy, charts, write_report
from segdeploy.cli import main
from segdeploy.files import digest_of
from segdeploy.model.labels import read_labels
from segdeploy.model.record import LedgerStep, WorstClass, read_record_file, record_path

pytestmark = pytest.mark.slow

HOSTILE = '"><script>alert(1)<_script>&.onnx'  # as far as a file name can go
VERDICT = "</style></script><script>alert(2)</script><img src=x onerror=alert(3)>"
SECTIONS = [
    "ledger",
    "training",
    "accuracy",
    "slider",
    "worst",
    "latency",
    "waterfall",
    "precision",
    "environment",
]


@pytest.fixture(scope="module")
def folder(graphs, tmp_path_factory):
    """What export, evaluate and bench write of the tiny network, one copy under a name that bites."""
    made = tmp_path_factory.mktemp("made") / "made <b>here"
    made.mkdir()
    plain = graphs("frames")
    for name in ("plain.onnx", HOSTILE):
        (made / name).write_bytes(plain.read_bytes())
        facts = json.loads(record_path(plain).read_text()) | {"artifact": name, "verdict": VERDICT}
        record_path(made / name).write_text(json.dumps(facts))
    images = tmp_path_factory.mktemp("images")
    for part in ("images", "labels"):
        (images / part).mkdir()
    for index in range(3):
        cv2.imwrite(str(images / f"images/{index}.png"), scenes.make_scene(index, 96, 160).image)
        cv2.imwrite(str(images / f"labels/{index}.png"), np.full((96, 160), index, np.uint8))
    (images / "m.yaml").write_text("ids: {0: road, 1: kerb, 2: sky, 3: car, 4: bus}")
    models = [str(made / "plain.onnx"), str(made / HOSTILE)]
    asked = ["--dataset", "folder", "--root", str(images), "--mapping", str(images / "m.yaml")]
    assert main(["evaluate", *models, *asked, "-o", str(made), "--worst", "2"]) == 0
    short = ["--duration", "0.05", "--warmup", "1"]
    dynamic = graphs("frames", None)
    assert main(["bench", str(dynamic), "--batch", "1,2", *short, "--json", str(made / "bench.json")]) == 0
    end_to_end = ["--end-to-end", str(images / "images"), *short, "--json", str(made / "fall.json")]
    assert main(["bench", models[0], *end_to_end]) == 0
    assert main(["bench", models[0], "--compare", models[1], *short, "--json", str(made / "both.json")]) == 0
    return made


@pytest.fixture(scope="module")
def page(folder):
    return write_report(folder, folder / "report.html")


class Outline(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def of(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def outline(page):
    return Outline(page.read_text())


def test_every_section_is_there_with_its_content(outline):
    assert [one["id"] for one in outline.of("h2")] == SECTIONS
    assert [one["href"] for one in outline.of("a")] == ["#main", *(f"#{name}" for name in SECTIONS)]
    charts = [one["aria-label"] for one in outline.of("svg") if one.get("aria-hidden") != "true"]
    for title in ("IoU of each class", "Median latency by batch size", "Throughput by batch size"):
        assert title in charts
    assert "Medians, one stage after the other" in charts
    assert charts.count("Layers from input to output") == 2
    assert [one.get("class") for one in outline.of("p")].count("missing") == 1  # nothing was trained here


class Rows(HTMLParser):
    """The cells of each table, row by row, under the table's caption."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.inside = {}, None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.rows = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        self.inside = tag

    def handle_data(self, data):
        if self.inside == "caption":
            self.tables.setdefault(data, []).append(self.rows)
        elif self.inside in ("th", "td"):
            self.rows[-1][-1] += data

    def handle_endtag(self, tag):
        self.inside = None


def test_the_ledger_says_what_each_step_cost(graphs, images, tmp_path):
    """Cell by cell: how much of a graph is INT8 stands where its heading says so."""
    graph = graphs("frames")
    asked = ["--images", str(images), "--max-drop", "100", "--fp16", "-o", str(tmp_path)]
    assert main(["quantize", str(graph), *asked]) == 0
    (beside,) = tmp_path.glob("*.onnx.json")
    record = json.loads(beside.read_text())
    page = write_report(tmp_path, tmp_path / "r.html").read_text()
    ((headings, *rows),) = Rows(page).tables["What each step cost"]
    assert headings == [
        "step", "compared with", "equal pixels, %", "mIoU, %", "pixel accuracy, %", "worst class", "in INT8, %",
    ]  # fmt: skip
    fp16, both = record["ledger"][1:]
    share = both["macs"]["int8"]
    assert 0.9 < share < 1
    assert rows == [
        ["fp32", "PyTorch FP32", "100.0000", "–", "–", "–", "0"],
        ["fp16", "the FP32 graph", f"{100 * fp16['pixel_agreement']:.4f}", "–", "–", "–", "0"],
        [
            "int8+fp16", "the FP32 graph", f"{100 * both['pixel_agreement']:.4f}", "–", "–", "–", f"{100 * share:.0f}",
        ],
    ]  # fmt: skip


def test_a_step_of_an_older_record_does_not_say_how_much_is_int8():
    worst = WorstClass("car", -1.25)
    step = LedgerStep(
        "int8", "the FP32 graph", 0.975, miou=0.5, pixel_accuracy=0.75, worst_class=worst, macs={"int8": 0.94}
    )
    assert accuracy.row_of(step) == [
        "int8", "the FP32 graph", "97.5000", "50.00", "75.00", "car -1.2", "94",
    ]  # fmt: skip
    assert accuracy.row_of(LedgerStep("int8")) == ["int8", "–", "–", "–", "–", "–", "–"]


def test_intervals_stand_beside_the_miou():
    assert (
        accuracy.miou_shown(LedgerStep("fine-tuned", miou=0.5, miou_interval=(48.0, 52.0)))
        == "50.00 (48.00 to 52.00)"
    )
    assert (
        accuracy.miou_shown(LedgerStep("int8", miou=0.5, drop_interval=(-0.1, 0.25)))
        == "50.00 (lost -0.10 to 0.25)"
    )
    assert accuracy.miou_shown(LedgerStep("int8", drop_interval=(-0.1, 0.25))) == "–"


def test_an_engine_that_was_compared_with_nothing_says_so():
    kept = Path(__file__).parent / "data" / "records"
    graph, engine = (read_record_file(kept / f"{name}.json") for name in ("fp32", "engine"))
    assert "engine" not in [step.name for step in accuracy.steps_of(graph)]
    unproven = replace(engine, ledger=tuple(step for step in engine.ledger if step.name != "engine"))
    last = accuracy.steps_of(unproven)[-1]
    assert (last.name, last.compared_with) == ("engine", "nothing yet: segdeploy verify, on its device")
    proven = replace(engine, ledger=(*unproven.ledger, LedgerStep("engine", "the graph in TensorRT")))
    assert accuracy.steps_of(proven) == [*unproven.source.steps, *proven.ledger]


def test_numbers_are_those_of_the_files(folder, outline):
    words = " ".join(outline.words)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert f"{100 * evaluation['models'][0]['scores']['miou']:.2f}" in words
    bench = json.loads((folder / "bench.json").read_text())
    assert [row["batch"] for row in bench["measurements"]] == [1, 2]
    for row in bench["measurements"]:
        assert f"{row['timings']['latency']['median']:.2f}" in words
    assert bench["machine"]["cpu"] in words


def test_it_loads_nothing(outline, page):
    text = page.read_text()
    for one in outline.of("img"):
        assert one["src"].startswith("data:image/")
    assert not outline.of("link", "iframe", "object", "embed", "base", "form")
    assert all("src" not in one for one in outline.of("script"))
    assert "url(" not in text and "@import" not in text
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name of a language, which nobody fetches
    policy = next(one["content"] for one in outline.of("meta") if "content" in one and "http-equiv" in one)
    assert policy.startswith("default-src 'none'")


def test_hostile_names_are_words(outline, page):
    assert len(outline.of("script")) == 1
    assert "<script>alert" not in page.read_text()
    assert any("<script>alert(1)<_script>" in words for words in outline.words)
    assert not outline.of("b") and not [one for one in outline.of("img") if "onerror" in one]
    assert VERDICT in outline.words
    assert "segdeploy report: made <b>here" in outline.words


def test_it_can_be_read_by_those_who_do_not_see_it(outline):
    assert outline.of("html") == [{"lang": "en"}]
    labelled = {one["for"] for one in outline.of("label")}
    controls = outline.of("input", "select")
    assert controls and all(one["id"] in labelled for one in controls)
    assert all("alt" in one for one in outline.of("img"))
    seen = [one for one in outline.of("svg") if one.get("aria-hidden") != "true"]
    assert seen
    assert all(one["role"] == "img" and one["aria-label"] for one in seen)
    assert all(one["scope"] in ("col", "row") for one in outline.of("th"))
    identities = [one["id"] for _, one in outline.tags if "id" in one]
    assert len(set(identities)) == len(identities)


def luminance(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


def contrast(one, other):
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_charts_have_contrast(page, dark):
    """4.5 for text and 3 for marks, as WCAG's level AA asks."""
    sheet = page.read_text().partition("<style>")[2].partition("</style>")[0]
    colours = re.findall(r"--(paper|ink|soft|tint|link): (#[0-9a-f]{6})", sheet)
    scheme = dict(colours[5:] if dark else colours[:5])
    for name in ("ink", "soft", "link"):
        for ground in ("paper", "tint"):
            assert contrast(scheme[name], scheme[ground]) >= 4.5, (name, ground)
    marks = re.findall(r"\.s(\d) \{ fill: (#[0-9a-f]{6})", charts.STYLE)
    assert len(marks) == 2 * charts.SERIES
    for _, colour in marks[charts.SERIES :] if dark else marks[: charts.SERIES]:
        assert contrast(colour, scheme["paper"]) >= 3
    words = re.findall(
        r"text \{ fill: (#[0-9a-f]{6}); \} \.chart \.soft \{ fill: (#[0-9a-f]{6})", charts.STYLE
    )
    assert all(contrast(colour, scheme["paper"]) >= 4.5 for colour in words[dark])


# ---- what is missing or wrong ----------------------------------------------------------------------------------


def test_a_record_alone_makes_a_page(graphs, tmp_path):
    graph = graphs()
    (tmp_path / "x.onnx.json").write_text(record_path(graph).read_text())
    (tmp_path / "notes.json").write_text('["not ours"]')
    (tmp_path / "broken.json").write_text("{")
    outline = Outline(write_report(tmp_path, tmp_path / "r.html").read_text())
    assert [one["id"] for one in outline.of("h2")] == SECTIONS
    said = " ".join(outline.words)
    for words in (
        "No training lies here",
        "No evaluation lies here",
        "Nothing was measured here",
        "No waterfall lies here",
        "its layers",
    ):
        assert words in said
    assert not outline.of("img", "svg")


def test_a_training_is_drawn(tmp_path):
    said = write_report(training_in(tmp_path / "mine"), tmp_path / "r.html").read_text()
    assert "The weights are those of step 20, the best on 4 others of the same split" in said
    assert "the scores are of 9 images of town val, which nothing was chosen by" in said
    assert "mine, step 0: 5" in said
    assert "mine, step 20: 62.5" in said
    assert "mine, step 10: 1.5" in said  # the loss
    assert "road, mine: 91.2 %" in said
    assert "hole, mine: – %" in said
    assert "<td>48.00 to 61.00</td>" in said.replace(' class="number"', "")


def test_a_training_of_other_weights_is_not_drawn(tmp_path, capsys):
    folder = training_in(tmp_path / "mine")
    (folder / "model.safetensors").write_bytes(b"others")
    assert main(["report", str(folder)]) == 1
    assert "is of other weights than model.safetensors beside it" in capsys.readouterr().err
    assert "step 20" not in (folder / "report.html").read_text()


def training_in(folder):
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    reported = {
        "split": "town val", "images": 9, "miou": 0.55, "pixel_accuracy": 0.875, "low": 0.48, "high": 0.61,
        "classes": [{"name": "road", "iou": 0.9125}, {"name": "hole", "iou": None}],
    }  # fmt: skip
    facts = {
        "schema": 1, "start": "b0", "teacher": None, "dataset": "town train", "images": 40, "watched_images": 4,
        "recipe": {}, "best_step": 20, "reported": reported, "ledger": [],
        "weights": digest_of(folder / "model.safetensors"),
        "history": [
            {"step": 0, "miou": 0.05}, {"step": 10, "loss": 1.5, "miou": 0.5}, {"step": 20, "loss": 0.5, "miou": 0.625},
        ],
    }  # fmt: skip
    (folder / "segdeploy.training.json").write_text(json.dumps(facts))
    return folder


def test_an_empty_folder_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    assert "holds no record, no evaluation.json and no results of segdeploy bench" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(["report", str(tmp_path / "nowhere")]) == 1
    assert "is not a folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "-o", "x.pdf"]) == 1
    assert "-o x.pdf is no .html file" in capsys.readouterr().err


def test_what_cannot_be_shown_is_named_and_the_rest_is_shown(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "all")
    evaluation, bench = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("evaluation", "bench")
    )
    (tmp_path / "all/newer.json").write_text(json.dumps(bench | {"schema": 99}))
    (tmp_path / "all/older.json").write_text(json.dumps(evaluation | {"schema": 0}))
    (tmp_path / "all/other.json").write_text(json.dumps(evaluation | {"models": 5}))
    del evaluation["models"][0]["scores"]["iou"]
    (tmp_path / "all/hole.json").write_text(json.dumps(evaluation))
    page = tmp_path / "r.html"
    assert main(["report", str(tmp_path / "all"), "-o", str(page)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 2)[1] for line in said] == [
        str(tmp_path / "all" / f"{name}.json") for name in ("newer", "older", "hole", "other")
    ]
    assert (
        "newer.json has schema 99, this version of segdeploy reads 1 of a bench; use the version" in said[0]
    )
    assert "older.json has schema 0, this version of segdeploy reads 1 of an evaluation" in said[1]
    assert (
        "hole.json is not as segdeploy writes it (KeyError('iou')); write it again, or remove it" in said[2]
    )
    whole = tmp_path / "whole.html"
    main(["report", str(folder), "-o", str(whole)])
    for words in ("IoU of each class", "Latency of a query, in ms"):
        assert page.read_text().count(words) == whole.read_text().count(words) > 0


@pytest.mark.parametrize("damage", ['{"sch', '{"schema": 2, "steps": 7}', "[]"])
def test_a_damaged_record_is_no_other_programs_file(graphs, tmp_path, capsys, damage):
    graph = graphs("frames")
    for name in ("sound", "damaged"):
        (tmp_path / name).mkdir()
        for suffix in ("", ".json"):
            shutil.copy(f"{graph}{suffix}", tmp_path / name / f"x.onnx{suffix}")
    (tmp_path / "damaged/x.onnx.json").write_text(damage)
    assert main(["report", str(tmp_path)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"{tmp_path / 'damaged/x.onnx.json'} is not a record that can be read" in said[0]


def test_the_command(folder, tmp_path, capsys):
    assert main(["report", str(folder), "-o", str(tmp_path / "r.html")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'r.html'}, ")


# ---- a browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(page, tmp_path_factory):
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(
            "no Chromium is installed, so the page is not opened in a browser: apt-get install chromium"
        )
    browser = Page(chromium, tmp_path_factory.mktemp("profile"))
    browser.open(page)
    yield browser
    browser.close()


def test_a_browser_shows_it_without_complaint_or_request(shown, page):
    assert shown.ask("document.querySelectorAll('main section').length") == len(SECTIONS)
    assert shown.ask("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert shown.of("Runtime.exceptionThrown") == [] and shown.of("Log.entryAdded") == []
    asked = {one["request"]["url"] for one in shown.of("Network.requestWillBeSent")}
    assert {address for address in asked if not address.startswith("data:")} == {page.as_uri()}
    assert shown.ask("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_slider_moves_by_keys_and_the_pictures_change(shown):
    wipe = "document.querySelector('[data-wipe]')"
    cut = "document.querySelector('[data-stage]').style.getPropertyValue('--cut')"
    assert shown.ask(cut) == "50%"
    shown.ask(f"{wipe}.focus()")
    for _ in range(3):
        shown.press("ArrowRight", 39)
    assert shown.ask(f"{wipe}.value") == "53"
    assert shown.ask(cut) == "53%"
    assert shown.ask(f"{wipe}.getAttribute('aria-valuetext')") == "53 % of the left picture"
    shown.ask("document.querySelector('.stage').scrollIntoView()")
    box = "document.querySelector('.stage').getBoundingClientRect()"
    left, top, width, height = shown.ask(
        f"(() => {{const b = {box}; return [b.left, b.top, b.width, b.height]}})()"
    )
    for kind, share, buttons in (
        ("mousePressed", 0.7, 1),
        ("mouseMoved", 0.25, 1),
        ("mouseReleased", 0.25, 0),
    ):
        place = {"x": left + share * width, "y": top + height / 2}
        shown.call(
            "Input.dispatchMouseEvent", type=kind, button="left", buttons=buttons, clickCount=1, **place
        )
    assert shown.ask(f"{wipe}.value") == "25"  # the line is dragged on the picture
    source = "document.querySelector('[data-over]').src"
    before = shown.ask(source)
    shown.ask("document.querySelector('[data-left]').focus()")
    shown.press("Home", 36)
    assert shown.ask("document.querySelector('[data-left]').selectedIndex") == 0
    assert shown.ask(source) != before
    assert shown.ask("document.querySelector('[data-over]').alt").startswith("original, ")


def test_tab_reaches_the_slider_and_shows_where_it_is(shown):
    shown.ask("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = []
    for _ in range(40):
        shown.press("Tab", 9)
        reached.append(shown.ask("document.activeElement.id || document.activeElement.className"))
        if reached[-1] == "wipe-0":
            break
    assert reached[-1] == "wipe-0"
    assert shown.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_it_follows_the_readers_light_or_dark(shown):
    seen = {}
    for scheme in ("light", "dark"):
        shown.prefer(scheme)
        seen[scheme] = (
            shown.ask("getComputedStyle(document.body).backgroundColor"),
            shown.ask("getComputedStyle(document.querySelector('.chart text')).fill"),
        )
    assert seen == {
        "light": ("rgb(255, 255, 255)", "rgb(28, 32, 36)"),
        "dark": ("rgb(21, 24, 27)", "rgb(230, 233, 236)"),
    }


def test_the_colours_of_the_classes_are_told():
    found = SimpleNamespace(
        facts={"models": [{"scores": {"iou": dict.fromkeys(read_labels("cityscapes").names)}}]}
    )
    said = accuracy.class_key(found)
    assert said.count("<li>") == 19
    assert '<rect width="1" height="1" fill="rgb(128, 64, 128)"/></svg>road</li>' in said
    found.facts["models"][0]["scores"]["iou"] = {"<b>": None}
    assert "&lt;b&gt;</li>" in accuracy.class_key(found)
