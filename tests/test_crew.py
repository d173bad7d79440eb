"""Crews of processes and who hands out to them: each task is answered once, whoever dies; errors keep their kind."""

import os
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from segdeploy.errors import EngineError, ImageError, RequestError
from segdeploy.run.crew import Order, ProcessCrew
from segdeploy.run.gpu_choice import choose_gpu, visible_gpu
from segdeploy.run.hands import Hands


@pytest.fixture(autouse=True)
def workers_are_found(monkeypatch):
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def answered(tasks, count=2, devices=(), **setup):
    with closing(ProcessCrew(Order("crew_workers:open_told", setup), count, devices)) as crew:
        return list(Hands(crew).work(iter(tasks)))


@pytest.mark.slow
def test_each_task_is_answered_once_whoever_dies():
    tasks = [[str(number), "print" if number % 3 else ""] for number in range(40)]
    tasks[7][1] = "die"
    done = answered(tasks)
    assert Counter(answer["key"] for _, answer in done) == Counter(key for key, _ in tasks)
    (lost,) = [answer for _, answer in done if "reason" in answer]
    assert lost == {"key": "7", "reason": "it ended the process that worked on it (signal 9), twice"}


def test_hands_may_work_again_with_the_same_processes():
    with closing(ProcessCrew(Order("crew_workers:open_told", {}), 1)) as crew:
        hands = Hands(crew)
        first, second = (list(hands.work(iter([["a", ""], ["b", ""]]))) for _ in range(2))
    assert {answer["pid"] for _, answer in first} == {answer["pid"] for _, answer in second}


def test_workers_are_hired_as_there_is_work():
    assert len({answer["pid"] for _, answer in answered([["a", ""], ["b", ""]], count=64)}) == 1
    assert answered([], count=2) == []


@pytest.mark.slow
def test_errors_keep_their_kind():
    with pytest.raises(ImageError, match="this ends all"):
        answered([["a", "raise"]])
    with pytest.raises(ImageError, match="it cannot be opened"):
        answered([["a", ""]], opens="error")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        answered([["a", "fault"]])
    with pytest.raises(EngineError, match=r"before they had opened the model \(signal 9\)"):
        answered([["a", ""]], count=1, opens="death")


@pytest.mark.slow
def test_each_worker_sees_one_gpu(monkeypatch):
    tasks = [[str(number), ""] for number in range(40)]
    seen = {answer["pid"]: answer["saw"] for _, answer in answered(tasks, devices=(3, 1))}
    assert sorted(seen.values()) == ["1", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b,GPU-a")
    assert {answer["saw"] for _, answer in answered([["a", ""]], devices=(1,))} == {"GPU-a"}


@pytest.mark.parametrize(
    ("verb", "words"),
    [("run", ["a.png"]), ("bench", []), ("evaluate", ["--dataset", "camvid", "--root", "."])],
)
def test_the_gpu_is_chosen_before_anything_calls_cuda(verb, words, monkeypatch, capsys):
    from segdeploy import cli

    seen = []
    monkeypatch.setattr(
        cli.VERBS[verb][0], "execute", lambda arguments: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]) or 0
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    command = [verb, "x.onnx", *words, "--device", "1"]
    assert cli.main(command) == 1
    assert "--device 1 is of a GPU, and x.onnx would run on the CPU" in capsys.readouterr().err
    assert seen == []
    assert cli.main([*command, "--provider", "cuda"]) == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    assert cli.main([verb, "x.engine", *words, "--device", "0"]) == 0
    assert seen == ["6", "5"]
    assert cli.main([verb, "x.engine", *words, "--device", "1"]) == 1
    assert "there is no GPU 1: CUDA_VISIBLE_DEVICES is '5', which shows 1" in capsys.readouterr().err


def test_a_gpu_is_counted_among_those_that_are_seen(monkeypatch):
    assert visible_gpu(2) == "2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7")
    assert visible_gpu(1) == "7"
    for told in ("4", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
        with pytest.raises(RequestError, match=rf"there is no GPU 1: CUDA_VISIBLE_DEVICES is '{told}'"):
            visible_gpu(1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7")
    choose_gpu(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
