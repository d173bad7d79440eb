"""Archives: each file once, from where it stopped, whatever was killed; the rest is listed with its reason."""

import csv
import io
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter, deque
from pathlib import Path

import clips
import cv2
import numpy as np
import pytest
from PIL import Image

from segdeploy.cli import main
from segdeploy.errors import EngineError, OutputError, RequestError
from segdeploy.picture.image import read_frame
from segdeploy.picture.rle import mask_of
from segdeploy.run.crew import error_in_words
from segdeploy.run.session import open_session, segment
from segdeploy.serve.archive import archive as driver
from segdeploy.serve.archive.archive import ArchiveRequest, archive
from segdeploy.serve.archive.items import Digests, Item
from segdeploy.serve.archive.journal import finished_in


class InlineCrew:
    """Works in this process; `deaths` says after how many answers a worker is gone, again and again."""

    def __init__(self, order, request, deaths=()):
        self.order, self.count = order, request.workers
        self.segmenters, self.answers, self.deaths = {}, deque(), deque(deaths)
        self.hired = []

    def hire(self, worker):
        name = secrets.token_hex(6)
        self.hired.append(name)
        self.segmenters[worker] = self.order.opened(name)
        self.answers.append((worker, {"ready": self.segmenters[worker].batch}))
        return name

    def give(self, worker, tasks):
        if worker not in self.segmenters:  # it died, and nobody has read of it yet
            return
        try:
            for answer in self.segmenters[worker].work(tasks):
                if self.deaths and self.deaths[0] == 0:  # it has written its journal, and cannot say so
                    self.deaths.popleft()
                    self.answers.append((worker, {"gone": "signal 9"}))
                    del self.segmenters[worker]
                    return
                if self.deaths:
                    self.deaths[0] -= 1
                self.answers.append((worker, answer))
        except Exception as error:  # noqa: BLE001 # as a process tells of it
            self.answers.append((worker, error_in_words(error)))

    def wait(self):
        return [self.answers.popleft()]

    def close(self):
        for segmenter in self.segmenters.values():
            segmenter.close()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(driver, "PAUSE_S", 0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Images in two folders, a video, a tar; a damaged image, and one in the tar."""
    root = tmp_path_factory.mktemp("sources")
    random_ = np.random.default_rng(0)
    for number in range(6):
        path = root / f"cam{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), random_.integers(0, 256, (40, 60, 3), np.uint8))
    (root / "cam0" / "damaged.jpg").write_bytes(b"no image")
    (root / "cam0" / "notes.md").write_text("not of the archive")
    clips.write_clip(root / "clip.mp4", clips.every_40_ms(5))
    write_tar(root / "some.tar", {"a/0.png": 5, "a/0.txt": None, "b.jpg": b"no image", "../out.png": 6})
    return root


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            data = content or b"text"
            if isinstance(content, int):
                pixels = np.random.default_rng(content).integers(0, 256, (40, 60, 3), np.uint8)
                data = cv2.imencode(".png", pixels)[1].tobytes()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def asked(graphs, sources, tmp_path):
    def request(*names, **given):
        words = tuple(str(name) for name in names) or (str(sources),)
        given = {"output": tmp_path / "out", "workers": 2, **given}
        return ArchiveRequest(graphs("frames"), words, **given)

    return request


def done_once(request, deaths=(), seen=None):
    crews = []

    def crew_of(order, request):
        crews.append(InlineCrew(order, request, deaths))
        return crews[0]

    progressed = []
    done = archive(request, lambda: progressed.append(1), crew_of)
    if seen is not None:
        seen.extend(crews[0].hired)
    return done, len(progressed)


def journaled(output):
    return Counter(
        one.item.name for path in (output / "journal").glob("0*.jsonl") for one in finished_in(path)
    )


def labels_in(output):
    return sorted(path.relative_to(output / "labels").as_posix() for path in (output / "labels").rglob("*.*"))


ALL = [
    *(f"cam{number % 2}/{number}.png" for number in range(6)),
    "clip.mp4",
    "some.tar",
]


@pytest.mark.slow
def test_every_file_is_done_once(asked, sources, graphs):
    done, progressed = done_once(asked())
    assert (done.files, done.frames, done.before, done.failed, progressed) == (8, 12, 0, 3, 9)
    assert str(done) == (
        f"{done.output}: 8 files done, 12 frames; 3 failed, with the reason in {done.output}/failures.jsonl"
    )
    assert labels_in(done.output) == sorted(
        [f"{name}.ids.png" for name in ALL[:6]] + ["clip.mp4.ids.tar", "some.tar.ids.tar"]
    )
    with open_session(graphs("frames")) as session:
        expected = segment(session, read_frame(sources / "cam1/3.png"))
    found = cv2.imread(str(done.output / "labels/cam1/3.png.ids.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, expected.labels)
    with tarfile.open(done.output / "labels/clip.mp4.ids.tar") as tar:
        assert tar.getnames() == [f"{number:08d}.ids.png" for number in range(5)]
        one = cv2.imdecode(
            np.frombuffer(tar.extractfile("00000004.ids.png").read(), np.uint8), cv2.IMREAD_UNCHANGED
        )
        assert one.shape == (clips.HEIGHT, clips.WIDTH)
    with tarfile.open(done.output / "labels/some.tar.ids.tar") as tar:
        assert tar.getnames() == ["a/0.png.ids.png"]
    lines = [json.loads(line) for line in done.failures.read_text().splitlines()]
    assert [line["file"] for line in lines] == ["cam0/damaged.jpg", "some.tar/b.jpg", "some.tar/../out.png"]
    assert lines[0]["reason"].startswith(f"{sources}/cam0/damaged.jpg is not an image that can be decoded")
    assert "leads out of its tar" in lines[2]["reason"]

    again, _ = done_once(asked(), seen=(hired := []))
    assert (again.files, again.before, again.failed) == (0, 8, 3)
    assert str(again).startswith(f"{done.output}: 0 files done, 0 frames, 8 were done before; 3 failed")
    assert len(hired) == 1  # for the file that failed
    assert journaled(done.output) == Counter(ALL)
    assert not list((done.output / "journal").glob("failed*"))
    assert not list(done.output.rglob(".*"))


def test_a_damaged_file_that_was_mended_is_no_failure_any_more(asked, sources, tmp_path):
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    path.write_bytes(b"half")
    done, _ = done_once(asked(path.parent))
    assert done.failed == 1
    path.write_bytes((sources / "cam0/0.png").read_bytes())
    done, _ = done_once(asked(path.parent))
    assert (done.files, done.failed, done.failures) == (1, 0, None)
    assert not (done.output / "failures.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [(0,), (1, 0), (2, 2, 1), (0, 0, 0, 0)])
def test_a_worker_that_dies_loses_and_doubles_nothing(asked, deaths):
    request = asked(areas="csv")
    done, progressed = done_once(request, deaths, hired := [])
    assert (done.files, done.failed, progressed) == (8, 3, 9)
    assert len(hired) > 1
    assert set(journaled(done.output)) == set(ALL)
    assert Counter(row[0] for row in table(done.areas)) == {
        **dict.fromkeys(ALL[:6], 1),
        "clip.mp4": 5,
        "some.tar": 1,
    }


@pytest.mark.slow
def test_a_file_that_kills_whoever_works_on_it_is_given_up(asked, sources, monkeypatch):
    class Dies(InlineCrew):
        def give(self, worker, tasks):
            if any(task[0] == "cam0/2.png" for task in tasks):
                self.answers.append((worker, {"gone": "signal 11"}))
                del self.segmenters[worker]
            elif worker in self.segmenters:
                super().give(worker, tasks)

    done = archive(asked(sources / "cam0", sources / "cam1"), crew_of=Dies)
    assert (done.files, done.failed) == (5, 2)
    reasons = {
        line["file"]: line["reason"] for line in map(json.loads, done.failures.read_text().splitlines())
    }
    assert reasons["cam0/2.png"] == ("it ended the process that worked on it (signal 11), twice")


def test_workers_that_cannot_start_end_the_run(asked):
    class Unable(InlineCrew):
        def hire(self, worker):
            self.answers.append((worker, {"gone": "signal 4"}))
            return "x"

        def give(self, worker, tasks):
            pass

    with pytest.raises(EngineError, match=r"before they had opened the model \(signal 4\); see that it"):
        archive(asked(), crew_of=Unable)


# ---- what is written ---------------------------------------------------------------------------------------------


def of_kind(kind, asked, sources, folder):
    """Cityscapes' names for the images, and their labels in one form beside grey PNGs."""
    frames = folder / "frames/aachen"
    frames.mkdir(parents=True)
    for number in range(3):
        copy = frames / f"aachen_{number:06d}_000019_leftImg8bit.png"
        copy.write_bytes((sources / f"cam{number % 2}/{number}.png").read_bytes())
    done, _ = done_once(asked(frames.parent, labels=kind, output=folder / kind))
    grey, _ = done_once(asked(frames.parent, output=folder / "grey"))
    assert (done.files, done.failed) == (3, 0)
    expected = [cv2.imread(str(path), -1) for path in sorted((grey.output / "labels").rglob("*.png"))]
    return done.output, expected


@pytest.mark.slow
def test_palettes_hold_the_same_ids(asked, sources, tmp_path):
    out, expected = of_kind("palette", asked, sources, tmp_path)
    found = sorted((out / "labels").rglob("*.ids.png"))
    for path, ids in zip(found, expected, strict=True):
        image = Image.open(path)
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), ids)


@pytest.mark.slow
def test_cityscapes_own_tools_find_the_submission(asked, sources, tmp_path, monkeypatch):
    out, expected = of_kind("cityscapes", asked, sources, tmp_path)
    truths = [f"aachen_{number:06d}_000019_gtFine_labelIds.png" for number in range(3)]
    monkeypatch.setenv("CITYSCAPES_RESULTS", str(out / "labels"))
    with open_session(asked().model) as session:
        classes = session.signature.labels
    own = np.array(classes.ids or range(len(classes.names)))
    evaluation = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    evaluation.args.predictionPath = evaluation.args.predictionWalk = None
    for truth, ids in zip(truths, expected, strict=True):
        path = evaluation.getPrediction(evaluation.args, truth)
        assert path.endswith(truth.replace("_gtFine_labelIds", "_pred_labelIds"))
        found = np.array(Image.open(path))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, own[ids])


@pytest.mark.slow
def test_panoptic_files_say_what_their_pngs_hold(asked, sources, tmp_path):
    out, expected = of_kind("panoptic", asked, sources, tmp_path)
    facts = json.loads((out / "panoptic.json").read_text())
    assert [image["file_name"] for image in facts["images"]] == [
        one["image_id"] + ".png" for one in facts["annotations"]
    ]
    known = {one["id"] for one in facts["categories"]}
    by_file = {one["file_name"]: one for one in facts["annotations"]}
    for path, ids in zip(sorted((out / "labels").rglob("*.png")), expected, strict=True):
        rgb = np.array(Image.open(path)).astype(int)
        segments = by_file[path.relative_to(out / "labels").as_posix()]["segments_info"]
        found, counts = np.unique(rgb @ [1, 256, 65536], return_counts=True)  # as panopticapi reads it
        assert {one["id"]: one["area"] for one in segments} == dict(
            zip(found.tolist(), counts.tolist(), strict=True)
        )
        assert {one["category_id"] for one in segments} <= known
        np.testing.assert_array_equal(rgb @ [1, 256, 65536], ids.astype(int) + 1)


@pytest.mark.parametrize(
    ("kind", "failed"), [("panoptic", ["clip.mp4", "some.tar"]), ("cityscapes", ["cam0/damaged.jpg", *ALL])]
)
def test_what_a_form_has_no_labels_for_fails_by_name(kind, failed, asked, tmp_path):
    done, _ = done_once(asked(labels=kind, output=tmp_path / "out"))
    lines = [json.loads(line) for line in done.failures.read_text().splitlines()]
    told = {line["file"]: line["reason"] for line in lines if "in the form" in line["reason"]}
    assert sorted(told) == sorted(failed)
    assert f"has no labels in the form {kind}, which is for images" in told["clip.mp4"]


@pytest.mark.slow
def test_run_lengths_are_of_the_labels_in_the_png(asked, tmp_path):
    png, _ = done_once(asked())
    rle, _ = done_once(asked(labels="rle", output=tmp_path / "rle"))
    expected = cv2.imread(str(png.output / "labels/cam0/0.png.ids.png"), cv2.IMREAD_UNCHANGED)
    found = json.loads((rle.output / "labels/cam0/0.png.rle.json").read_text())
    assert (found["image"], found["height"], found["width"]) == ("cam0/0.png", 40, 60)
    labels = np.full((40, 60), 255)
    for segment_ in found["segments"]:
        mask = mask_of(segment_["segmentation"])
        assert mask.sum() == segment_["area"]
        labels[mask] = segment_["category_id"]
    np.testing.assert_array_equal(labels, expected)
    assert found["segments"][0]["category"] == "road"
    lines = [json.loads(line) for line in (rle.output / "labels/clip.mp4.rle.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == [f"{number:08d}" for number in range(5)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_areas_of_shards_are_merged_by_the_last(asked, kind, tmp_path):
    whole, _ = done_once(asked(areas=kind, labels="none", output=tmp_path / "whole", every=2))
    for shard in (3, 1, 2):
        done, _ = done_once(asked(areas=kind, labels="none", shard=shard, shards=3, every=2))
        assert done.areas == (
            done.output / (f"areas.{kind}" if shard == 2 else f"areas/{shard:04d}-of-0003.{kind}")
        )
    assert not (whole.output / "labels").exists()
    assert sorted(table(whole.areas)) == sorted(table(done.areas))
    rows = table(whole.areas)
    assert len(rows) == 6 + 3 + 1
    assert [row[1:3] for row in rows if row[0] == "clip.mp4"] == [
        ("00000000", "0.0"), ("00000002", "0.08"), ("00000004", "0.16"),
    ]  # fmt: skip
    assert all(sum(map(float, row[5:])) == pytest.approx(1) for row in rows)


def table(path):
    if path.suffix == ".csv":
        return [tuple(row) for row in csv.reader(path.read_text().splitlines())][1:]
    import pyarrow.parquet

    found = pyarrow.parquet.read_table(path)
    assert found.column_names[:6] == ["file", "frame", "time_s", "height", "width", "area.road"]
    return [tuple("" if cell is None else str(cell) for cell in row.values()) for row in found.to_pylist()]


@pytest.mark.slow
def test_areas_can_be_asked_for_later(asked):
    done_once(asked())
    done, _ = done_once(asked(areas="csv"))
    assert (done.files, len(table(done.areas))) == (0, 12)


@pytest.mark.slow
def test_batches_give_the_same_labels(asked, graphs, tmp_path):
    one, _ = done_once(asked())
    four = ArchiveRequest(graphs("frames", 4), asked().sources, tmp_path / "four", workers=1)
    four_done, _ = done_once(four)
    assert (four_done.files, four_done.frames, four_done.failed) == (8, 12, 3)
    for path in (one.output / "labels").rglob("*.png"):
        assert (tmp_path / "four" / path.relative_to(one.output)).read_bytes() == path.read_bytes()


# ---- sources -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_globs_lists_and_addresses_are_sources(asked, sources, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(
        f"{sources}/cam0/0.png\n\n{sources}/cam1/1.png\n{sources}/cam1/1.png\n{sources}/cam1/gone.png\n"
    )
    done, _ = done_once(asked(listed, output=tmp_path / "by-list"))
    assert (done.files, done.failed) == (2, 1)
    assert labels_in(done.output) == ["cam0/0.png.ids.png", "cam1/1.png.ids.png"]

    done, _ = done_once(asked(sources / "cam*" / "[0-9].png", sources / "cam0", output=tmp_path / "by-glob"))
    assert (done.files, done.failed) == (6, 1)
    assert labels_in(done.output) == sorted(f"{name}.ids.png" for name in ALL[:6])

    done, _ = done_once(asked(f"file://{sources}", output=tmp_path / "by-address"))
    assert (done.files, done.frames, done.failed) == (8, 12, 3)
    assert labels_in(done.output)[0] == "cam0/0.png.ids.png"


def test_a_folder_of_an_address_that_may_not_be_listed_is_no_empty_one(asked, sources, monkeypatch):
    """As in a bucket whose rights end somewhere below: its files would be left out in silence."""
    from fsspec.implementations.local import LocalFileSystem

    listed = LocalFileSystem.ls

    def denied(self, path, **given):
        if path.endswith("cam1"):
            raise PermissionError("Access Denied")
        return listed(self, path, **given)

    monkeypatch.setattr(LocalFileSystem, "ls", denied)
    words = (
        "cannot be listed: PermissionError: Access Denied; see that it exists, and that this user may list it"
    )
    with pytest.raises(RequestError, match=words):
        done_once(asked(f"file://{sources}"))


def test_the_output_below_a_source_is_no_source(asked, sources, tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "a.png").write_bytes((sources / "cam0/0.png").read_bytes())
    for expected in (1, 0):
        done, _ = done_once(asked(inside, output=inside / "out"))
        assert done.files == expected
    cv2.imwrite(str(inside / "a.ids.png"), np.zeros((4, 4), np.uint8))  # as `run` writes
    assert done_once(asked(inside, output=inside / "out"))[0].files == 0


def test_a_file_is_in_one_shard_whatever_else_there_is():
    names = [f"cam{number}/{number}.png" for number in range(1000)]
    shards = [Item(name, "").shard(7) for name in names]
    assert set(shards) == set(range(1, 8))
    assert max(Counter(shards).values()) < 200
    assert Item("cam0/0.png", "elsewhere").shard(7) == shards[0]


def test_digests_are_a_set():
    random.seed(0)
    made = [random.randbytes(16) for _ in range(2000)] + [bytes(16), bytes(15) + b"\1", b"\1" + bytes(15)]
    from segdeploy.serve.archive import items

    before, items.FRESH = items.FRESH, 100
    try:
        digests = Digests(made[::2])
        assert [one in digests for one in made] == [number % 2 == 0 for number in range(len(made))]
        assert [digests.add(one) for one in made] == [number % 2 == 1 for number in range(len(made))]
        assert len(digests) == len(made)
    finally:
        items.FRESH = before


# ---- bad requests ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_another_plan_is_refused(asked, graphs, tmp_path):
    done_once(asked())
    output = tmp_path / "out"
    before = sorted(output.rglob("*"))
    for request, told in (
        (asked(labels="rle"), "--labels differ, there png, here rle"),
        (asked(shards=2), "the number of shards differ, there 1, here 2"),
        (
            ArchiveRequest(graphs("nvinfer"), asked().sources, output),
            "the model and the model's content differ",
        ),
        (asked(tmp_path.parent), "the sources"),
    ):
        with pytest.raises(OutputError, match="is an archive of another kind") as refused:
            archive(request)
        assert told in str(refused.value)
        assert "name another folder with -o" in str(refused.value)
    assert sorted(output.rglob("*")) == before


@pytest.mark.slow
def test_two_archives_at_once_are_refused(asked):
    request = asked()

    def second(order, given):
        with pytest.raises(OutputError, match="is being written by another segdeploy"):
            done_once(request)
        return InlineCrew(order, given)

    assert archive(request, crew_of=second).files == 8


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--shard", "3/2"], "shard 3/2 is out of range; expected 1/2 to 2/2"),
        (["--shard", "0/2"], "shard 0/2 is out of range"),
        (["--labels", "none"], "--labels none leaves nothing to write; give --areas"),
        (["--device", "1"], "--device is of a GPU, and tiny.frames.1.onnx would run on the CPU"),
    ],
)
def test_options_that_make_no_sense(refused, graphs, sources, options, told):
    assert told in refused("archive", graphs("frames"), sources, *options)


def test_sources_that_are_none(refused, graphs, tmp_path):
    model = graphs("frames")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "locked.txt").write_text("a.png")
    for source, told in (
        (tmp_path / "empty", "empty holds no image, video or tar; expected some"),
        (tmp_path / "gone", "there is no file or folder"),
        (tmp_path / "a.md", "neither an image nor a video nor a tar; a list of files ends in .txt"),
        (tmp_path / "*.jpg", "holds no image, video or tar"),
        (
            "rtsp://camera/1",
            "is no address of files (Protocol not known: rtsp); `segdeploy run` takes cameras",
        ),
        ("s3://user:secret@bucket/x", "was given with a password"),
        ("s3://bucket/x", "cannot be opened: Install s3fs"),
    ):
        said = refused("archive", model, source)
        assert told in said
        assert "secret" not in said


def test_shards_are_spelled(misused, graphs, sources):
    for text in ("3", "a/b", "1/0", "1/99999", "/2"):
        assert "--shard" in misused("archive", graphs("frames"), sources, "-o", "out", "--shard", text)


@pytest.mark.slow
def test_clocks_that_differ_change_nothing(asked, tmp_path):
    """Machines whose clocks are years apart work on one folder: no time of a file is looked at."""
    for shard, year_s in ((1, 0), (2, 2**32), (1, 2**31)):
        done, _ = done_once(asked(areas="csv", shard=shard, shards=2))
        for path in (tmp_path / "out").rglob("*"):
            os.utime(path, (year_s, year_s))
    assert done.files == 0
    assert len(table(tmp_path / "out/areas.csv")) == 12
    assert set(journaled(done.output).values()) == {1}


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(asked, monkeypatch):
    from segdeploy.serve.archive import labels

    written = []

    def full(path, data):
        if len(written) == 3:
            raise OutputError(f"{path} cannot be written: No space left on device")
        written.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(labels, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left on device"):
            done_once(asked())
    done, _ = done_once(asked())
    assert done.files + done.before == 8
    assert done.before >= 3  # the video and the tar may have been done before the disk was full


def test_a_folder_that_is_a_file_is_refused(asked, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"folder .*file cannot be made|cannot be written"):
        done_once(asked(output=tmp_path / "file"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/archive.json").write_text("{}")
    with pytest.raises(OutputError, match="does not say what this folder is"):
        done_once(asked(output=tmp_path / "other"))


@pytest.mark.slow
def test_a_damaged_journal_is_named(asked):
    done, _ = done_once(asked())
    path = next((done.output / "journal").glob("0*.jsonl"))
    path.write_bytes(b"{]\n" + path.read_bytes())
    with pytest.raises(
        OutputError, match="is damaged; delete it, and the files that it tells of are done again"
    ):
        done_once(asked())


@pytest.mark.slow
def test_a_line_that_was_cut_off_is_not_there(asked):
    done, _ = done_once(asked())
    path = next((done.output / "journal").glob("0*.jsonl"))
    whole = journaled(done.output)
    path.write_bytes(path.read_bytes()[:-9])
    again, _ = done_once(asked())
    assert (again.files, again.before) == (1, 7)
    assert journaled(done.output) == whole


# ---- processes ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_do_as_the_command_says(graphs, sources, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(
            ["archive", str(graphs("frames")), str(sources), "-o", str(out), "--workers", "2", "--json", "-"]
        )
        == 1
    )
    said = json.loads(capsys.readouterr().out)
    assert (said["files"], said["frames"], said["failed"]) == (8, 12, 3)
    assert said["failures"] == str(out / "failures.jsonl")
    assert journaled(out) == Counter(ALL)


FILES = 400


@pytest.mark.slow
@pytest.mark.thorough
def test_killed_anywhere_it_goes_on(graphs, sources, tmp_path):
    """Kill the driver and single workers at random moments, until a run comes to its end."""
    many = tmp_path / "many"
    many.mkdir()
    for number in range(FILES):
        (many / f"{number}.png").symlink_to(sources / "cam0/0.png")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "segdeploy", "archive", str(graphs("frames")), str(many), "-o", str(out)]
    random_ = random.Random(1)
    for round_ in range(3):
        with subprocess.Popen(
            [*command, "--workers", "2", "--areas", "csv"], start_new_session=True
        ) as running:
            before = len(list(out.rglob("*.png")))
            while running.poll() is None and len(list(out.rglob("*.png"))) < before + 5:
                time.sleep(0.01)
            time.sleep(random_.uniform(0, 0.1))
            if round_ == 1:
                os.kill(random_.choice(children_of(running.pid)), signal.SIGKILL)
                time.sleep(random_.uniform(0, 0.3))
            running.kill()
    done = subprocess.run([*command, "--areas", "csv"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert labels_in(out) == sorted(f"{number}.png.ids.png" for number in range(FILES))
    assert len({path.read_bytes() for path in (out / "labels").iterdir()}) == 1
    assert sorted(row[0] for row in table(out / "areas.csv")) == sorted(
        f"{number}.png" for number in range(FILES)
    )


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
