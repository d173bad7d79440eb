"""Archives and evaluations on Ray, started on this machine: the same results, whoever is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from segdeploy import scenes
from segdeploy.run.crew_ray import RayCrew
from segdeploy.serve.archive.archive import finished_files

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.thorough]  # `--processes` runs the same crews, without Ray

ON_RAY = ("--ray", "local", "--threads", "1", "--workers", "2")
FILES = 400


def command(*words):
    return [sys.executable, "-m", "segdeploy", *map(str, words)]


def actors_of(folder):
    """The processes of Ray's actors that were started by a run in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (
                b"ray::ActorWorker" in (process / "cmdline").read_bytes()
                and (process / "cwd").resolve() == folder
            ):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    cv2.imwrite(str(folder / "0.png"), pixels)
    for number in range(1, FILES):
        (folder / f"{number}.png").symlink_to("0.png")
    return folder


def test_killed_actors_and_drivers_lose_and_double_nothing(graphs, many, tmp_path):
    work = tmp_path / "here"
    work.mkdir()
    out = tmp_path / "out"
    words = command("archive", graphs("frames"), many, "-o", out, "--areas", "csv", *ON_RAY)
    with subprocess.Popen(words, cwd=work, stderr=subprocess.PIPE, text=True) as running:
        while running.poll() is None and len(list(out.rglob("*.png"))) < 20:
            time.sleep(0.01)
        for actor in actors_of(work)[:1]:
            os.kill(actor, signal.SIGKILL)
        while running.poll() is None and len(list(out.rglob("*.png"))) < 60:
            time.sleep(0.01)
        running.kill()
    before = sum(1 for _ in finished_files(out, 1, 1))
    done = subprocess.run([*words, "--json", "-"], cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "authentication" not in done.stderr  # of which Ray itself would warn
    said = json.loads(done.stdout)
    assert (said["files"] + said["before"], said["failed"]) == (FILES, 0)
    assert said["before"] >= before
    assert sorted(path.name for path in (out / "labels").iterdir()) == sorted(
        f"{number}.png.ids.png" for number in range(FILES)
    )
    assert len({path.read_bytes() for path in (out / "labels").iterdir()}) == 1
    assert len((out / "areas.csv").read_text().splitlines()) == FILES + 1


def test_scores_are_those_of_one_process(tmp_path):
    from conftest import write_checkpoint

    from segdeploy.convert.export import export_onnx
    from segdeploy.model.labels import read_labels

    checkpoint = write_checkpoint(tmp_path / "net", classes=read_labels("cityscapes").names)
    model = export_onnx(checkpoint, interface="frames", output=tmp_path).path
    scenes.write_cityscapes(tmp_path / "made", 5, seed=70, height=120, width=200)
    words = ["evaluate", model, "--dataset", "cityscapes", "--root", tmp_path / "made", "--json", "-"]
    told = [
        subprocess.run(command(*words, *more), capture_output=True, text=True, check=True).stdout
        for more in ((), ("--ray", "local", "--processes", "2"))
    ]
    assert told[0] == told[1]
    assert json.loads(told[0])


def test_int8_graphs_are_those_of_one_process(graphs, tmp_path):
    scenes.write_cityscapes(tmp_path / "made", 9, seed=80, height=120, width=200)
    words = ["quantize", graphs("frames"), "--images", tmp_path / "made", "--probes", "1"]
    words += ["--method", "minmax", "--equalise", "off", "--max-drop", "100"]
    written = []
    for number, more in enumerate(((), ("--ray", "local", "--processes", "2"))):
        out = tmp_path / f"int8-{number}"
        done = subprocess.run(command(*words, "-o", out, *more), capture_output=True, text=True, check=True)
        assert "Ray" not in done.stderr
        written.append([path.read_bytes() for path in out.glob("*.int8.onnx")])
        assert not list(out.glob("*.parts"))
    assert len(written[0]) == 1
    assert written[0] == written[1]


def test_a_cluster_that_is_not_there_is_named(graphs, many, tmp_path):
    words = command("archive", graphs("frames"), many, "-o", tmp_path / "out", "--ray", "127.0.0.1:1")
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "no Ray cluster could be joined at 127.0.0.1:1" in done.stderr.splitlines()[-1]
    assert "ray start --head" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


class Ready:
    """Stands in for Ray where several answers of one actor are ready: the last one is told first."""

    class exceptions:  # noqa: N801
        RayActorError = ConnectionError

    def wait(self, asked, num_returns):
        return asked[-num_returns:], asked[:-num_returns]

    def get(self, ref):
        return [{"key": ref}]


def test_a_workers_answers_come_in_the_order_of_its_tasks():
    crew = RayCrew.__new__(RayCrew)
    crew._ray, crew._actors, crew._pending = Ready(), {}, {"a1": 0, "b1": 1, "a2": 0, "b2": 1, "a3": 0}
    told = [crew.wait()[0] for _ in range(5)]
    assert [answer["key"] for worker, answer in told if worker == 0] == ["a1", "a2", "a3"]
    assert [answer["key"] for worker, answer in told if worker == 1] == ["b1", "b2"]
