"""Reports this machine's software and hardware, whether they fit together, what will work, and the next command.

Nothing heavy is imported: versions come from the packages' metadata, and libraries that must be loaded for an answer
are asked in separate processes, all at once. So a broken installation is a finding and never a traceback.
"""

from __future__ import annotations

from segdeploy.doctor.abilities import JUDGES, Ability, Diagnosis, judge, next_command
from segdeploy.doctor.compatibility import tables
from segdeploy.doctor.finding import NOTE, OK, PROBLEM, Remark
from segdeploy.doctor.hardware import (
    about_board,
    about_cuda,
    about_gpu,
    about_power,
    about_python,
    about_room,
)
from segdeploy.doctor.machine import Machine, ThisMachine
from segdeploy.doctor.software import (
    about_cuda_packages,
    about_deepstream,
    about_further_runtimes,
    about_media,
    about_onnxruntime,
    about_opencv,
    about_rtx,
    about_tensorrt,
    about_torch,
)
from segdeploy.doctor.survey import survey

__all__ = [
    "ABILITIES",
    "NOTE",
    "OK",
    "PROBLEM",
    "Ability",
    "Diagnosis",
    "Machine",
    "Remark",
    "ThisMachine",
    "diagnose",
    "tables",
]

ABILITIES = tuple(JUDGES)
PARTS = (
    about_python, about_board, about_gpu, about_cuda, about_tensorrt, about_rtx, about_onnxruntime,
    about_further_runtimes, about_cuda_packages, about_torch, about_opencv, about_media, about_deepstream,
    about_power, about_room,
)  # fmt: skip


def diagnose(machine: Machine) -> Diagnosis:
    seen = survey(machine)
    found = [finding for about in PARTS for finding in about(seen)]
    able = judge(seen, found)
    return Diagnosis(found, able, next_command(found, able, bool(seen.gpus)))
