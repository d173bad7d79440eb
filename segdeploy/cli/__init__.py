"""The command line: one thin file per verb. Only this folder prints, reads argv or chooses an exit status.

A verb's module has `describe(parser)` and `execute(arguments)`; what it runs is imported inside `execute`, so that
`segdeploy --help` answers at once.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from segdeploy.cli import (
    adopt,
    archive,
    bench,
    build_engine,
    cache,
    completion,
    deepstream,
    demo,
    distil,
    doctor,
    evaluate,
    export,
    finetune,
    inspect,
    models,
    push,
    quantize,
    report,
    run,
    selftest,
    triton,
    tune,
    verify,
)
from segdeploy.cli.endings import STOPPED, drop_output, flushed, leave_what_hangs, told_of_system
from segdeploy.cli.faults import keep_tracebacks, print_fault
from segdeploy.cli.limits import bound_memory, demand_files, limit_in_words
from segdeploy.cli.model_argument import put_graphs, take_gpu
from segdeploy.cli.printing import demand_no_empty_word, print_log, print_message
from segdeploy.cli.settings import Parser, add_manners, leaves, parse_words, take_manner, tell_of_misspelt
from segdeploy.errors import SegdeployError
from segdeploy.files import no_new_folder_empty
from segdeploy.version import __version__

VERBS = {
    "models": (models, "list the model cards and what each needs"),
    "export": (export, "turn a checkpoint into an ONNX graph, compared with PyTorch"),
    "adopt": (
        adopt,
        "turn any ONNX graph of a segmentation network into one of segdeploy's, compared with the original",
    ),
    "finetune": (finetune, "teach a checkpoint the classes of a labelled data set"),
    "distil": (distil, "teach a small network by a large one, beside the labels"),
    "run": (run, "segment images, videos and camera streams with a model"),
    "archive": (archive, "segment millions of files: each once, by many processes, from where it stopped"),
    "inspect": (inspect, "say what an .onnx or .engine is, where it comes from and how well it agrees"),
    "evaluate": (evaluate, "score models on a labelled data set"),
    "quantize": (quantize, "turn an FP32 graph into an INT8 one that costs no more accuracy than allowed"),
    "tune": (
        tune,
        "measure every way this machine has to run a graph, compare each with it, and keep the best",
    ),
    "build-engine": (build_engine, "turn a graph into an engine, and compare both"),
    "verify": (verify, "compare an engine with its graph on the machine where it runs"),
    "doctor": (doctor, "say what is installed, what fits together, and what to type next"),
    "bench": (
        bench,
        "measure a model as trtexec would, compare models in turn, or show where a frame's time goes",
    ),
    "report": (report, "make one HTML file from a folder's results: ledger, scores, frames, speed"),
    "cache": (
        cache,
        "show, compare and convert TensorRT's calibration caches; list the graphs kept of checkpoints",
    ),
    "deepstream": (deepstream, "render, check, replay and start configurations of NVIDIA DeepStream"),
    "triton": (triton, "write a model repository for NVIDIA's Triton Inference Server"),
    "push": (push, "send a folder to the Hugging Face Hub, with a model card that has its ledger"),
    "completion": (completion, "write the completion of verbs, flags and files for a shell"),
    "demo": (demo, "go the whole way on the bundled model and made scenes"),
    "selftest": (
        selftest,
        "try small graphs of every kind on each runtime that is here, and write what can be sent",
    ),
}


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="segdeploy",
        description="From a segmentation checkpoint to a proven engine and a running camera stream.",
    )
    top.add_argument("--version", action="version", version=f"segdeploy {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (module, summary) in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        module.describe(verb)
        for leaf in leaves(verb):
            add_manners(leaf)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit statuses: 0, 1 for what is refused, 2 for a wrong command line, 70 for a fault of ours."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name need not be text
    if argv is None:  # the process is this command's
        keep_tracebacks()
        bound_memory()
    words = sys.argv[1:] if argv is None else argv
    # OpenCV has words of its own for a damaged image, beside ours.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    before = threading.enumerate()
    return flushed(leave_what_hangs(run_verb(words), before))


def outputs_of(arguments: argparse.Namespace) -> list[Path]:
    named = getattr(arguments, "output", None)
    return [] if named is None or "://" in str(named) else [Path(named)]


def run_verb(words: Sequence[str]) -> int:
    try:
        take_manner(None, os.environ)
        known = parser()
        demand_no_empty_word(known, words)
        arguments = parse_words(known, words, os.environ)
        arguments.whole_parser = known
        take_manner(arguments, os.environ)
        tell_of_misspelt(known, os.environ)
        module, _ = VERBS[arguments.verb]
        demand_files()
        if "checkpoints_in" in arguments:
            put_graphs(arguments)
        if getattr(arguments, "gpu", None) is not None:
            take_gpu(arguments)
        print_log(f"segdeploy {__version__}: {arguments.command}")
        for origin, said in arguments.filled.items():
            print_log(f"from {origin}: {' '.join(said) or 'left out'}")
        begun = time.monotonic()
        with no_new_folder_empty(*outputs_of(arguments)):
            status: int = module.execute(arguments)
        print_log(f"ended with exit status {status} after {time.monotonic() - begun:.1f} s")
        return status
    except SegdeployError as error:
        limit = limit_in_words(error)
        print_message(f"{error}; {limit}" if limit else error)
        return 1
    except KeyboardInterrupt:
        print_message("stopped")
        # If it came inside an exec of text (importing torch does many), `python -m` takes it for unhandled at its end,
        # and dies by the signal; the next exec makes it forget that.
        exec("")  # noqa: S102
        return STOPPED
    except BrokenPipeError:  # the reader of our output has gone (| head)
        drop_output()
        return 0
    except Exception as error:  # noqa: BLE001 # a limit of the machine, or a fault of ours
        if limit := limit_in_words(error):
            print_message(limit)
            return 1
        return told_of_system(error) if isinstance(error, OSError) else print_fault(error)
