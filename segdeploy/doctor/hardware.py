"""Makes findings about the machine itself: Python, board, GPU and driver, power, memory and disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from segdeploy.assess.bench.jetson import CLOCKS
from segdeploy.doctor.compatibility import OLDEST_CUDA, OLDEST_GPU, cuda
from segdeploy.doctor.finding import NOTE, OK, PROBLEM, Remark
from segdeploy.doctor.machine import Machine
from segdeploy.doctor.survey import Survey, dotted, numbers
from segdeploy.releases import Numbers

GIB = 2**30
LITTLE_MEMORY, LITTLE_DISK = 4 * GIB, 5 * GIB


def about_python(seen: Survey) -> Iterator[Remark]:
    python = seen.python
    yield Remark(OK, "Python", f"{python['version']} {home_of_python(seen)}, {python['executable']}")
    if python["system"] != "Linux":
        yield Remark(
            NOTE,
            "system",
            python["system"],
            "TensorRT, DeepStream and this doctor's GPU checks are for Linux",
        )


def home_of_python(seen: Survey) -> str:
    python = seen.python
    if seen.machine.paths(f"{python['prefix']}/conda-meta"):
        return "of conda"
    if "/.pyenv/" in python["base_prefix"]:
        return "of pyenv"
    if python["prefix"] == python["base_prefix"]:
        return "of the system" if python["prefix"] == "/usr" else f"in {python['prefix']}"
    return "in a virtual environment" + (
        "" if sees_system_packages(seen) else " without the system's packages"
    )


def sees_system_packages(seen: Survey) -> bool:
    settings = (seen.machine.read(f"{seen.python['prefix']}/pyvenv.cfg") or "").lower().replace(" ", "")
    return "include-system-site-packages=true" in settings


def about_board(seen: Survey) -> Iterator[Remark]:
    if seen.jetson is None:
        return
    jetson = seen.jetson
    found = f"{jetson.board}, JetPack {jetson.jetpack} (L4T {dotted(jetson.l4t)})"
    if jetson.row is None:
        yield Remark(NOTE, "board", found, "this L4T is not in the table: segdeploy doctor --table")
        return
    row = jetson.row
    yield Remark(
        OK,
        "board",
        f"{found}: made for Python {row.python}, CUDA {row.cuda}, TensorRT {row.tensorrt}, DeepStream {row.deepstream}",
    )


def about_gpu(seen: Survey) -> Iterator[Remark]:
    for gpu in seen.gpus:
        capability = gpu.compute_capability
        if capability and capability < OLDEST_GPU and not seen.jetson:
            yield Remark(
                PROBLEM,
                "GPU",
                str(gpu),
                f"TensorRT 10 and 11 need compute capability {dotted(OLDEST_GPU)}; run on the CPU, or on a newer GPU",
            )
        else:
            yield Remark(OK, "GPU", str(gpu))
    yield from about_driver(seen)


def about_driver(seen: Survey) -> Iterator[Remark]:
    error = seen.cuda.get("error")
    if seen.cuda.get("gpus"):
        yield from about_age_of_driver(seen)
    elif error:
        hidden = seen.machine.environment("CUDA_VISIBLE_DEVICES")
        remedy = "after an update of the driver restart the machine; in a container compare its driver with the host's"
        if hidden:
            remedy = f"CUDA_VISIBLE_DEVICES is {hidden!r} and may hide the GPU: unset it"
        yield Remark(PROBLEM, "driver", f"{seen.driver} does not answer: {error}".strip(), remedy)
    elif seen.gpus or seen.kernel_module:
        how = (
            "--runtime nvidia"
            if seen.jetson
            else "--gpus all and NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
        )
        yield Remark(
            PROBLEM,
            "driver",
            f"{seen.driver or seen.kernel_module or 'of the board'}: its library libcuda.so.1 is not found here",
            f"start the container with {how}; outside of one, install the driver's libraries of the same version",
        )
    else:
        remedy = "exporting, quantizing, evaluating and running need none"
        yield Remark(NOTE, "GPU", "no NVIDIA GPU or driver", remedy)


def about_age_of_driver(seen: Survey) -> Iterator[Remark]:
    version = (
        f"{seen.driver or 'of the board'}, CUDA up to {dotted(seen.driver_cuda) or 'an unknown version'}"
    )
    wanted = max([OLDEST_CUDA, *(major for _, major in built_for(seen))]) if not seen.jetson else 0
    if not seen.driver_cuda or seen.driver_cuda[0] >= wanted:
        yield Remark(OK if seen.driver_cuda else NOTE, "driver", version)
        return
    least, own = cuda(wanted), seen.driver_cuda[0]
    users = sorted({name for name, major in built_for(seen) if major > own})
    remedy, command = f"update the driver to {least.driver if least else 'the newest'} or later", ""
    if users and own >= OLDEST_CUDA:
        parts = " ".join(name for name in ("tensorrt", *seen.pip_tensorrt) if seen.has(name))
        remedy += f", or take what is built for CUDA {own}"
        command = f"pip uninstall -y {parts} && {pip_tensorrt(seen.driver_cuda)}"
    found = f"{version} is too old: {', '.join(users) or 'what pip brings'} is built for CUDA {wanted}"
    yield Remark(PROBLEM, "driver", found, remedy, command)


def built_for(seen: Survey) -> list[tuple[str, int]]:
    """List pip's TensorRT packages, as in tensorrt_cu13, with the CUDA major that each is built for."""
    return [(name[:13], int(name[11:13])) for name in seen.pip_tensorrt if name[9:11] == "cu"]


def pip_tensorrt(driver_cuda: Numbers) -> str:
    if driver_cuda and driver_cuda[0] < 13:
        return f"pip install tensorrt-cu{driver_cuda[0]} 'cuda-python<13'"
    return "pip install 'segdeploy[tensorrt]'"


def about_cuda(seen: Survey) -> Iterator[Remark]:
    if seen.toolkits:
        yield Remark(OK, "CUDA toolkit", ", ".join(seen.toolkits))


def about_power(seen: Survey) -> Iterator[Remark]:
    mode = seen.outputs.get("nvpmodel", "").replace("NV Power Mode:", "").split()
    if mode:
        locked = is_clock_locked(seen.machine)
        found = f"mode {mode[0]}, clocks {LOCKED[locked]}"
        if locked and mode[0].startswith("MAXN"):
            yield Remark(OK, "power", found)
        else:
            yield Remark(
                NOTE,
                "power",
                found,
                "before measuring, choose the mode that you ship with (sudo nvpmodel -m N) and lock the clocks:"
                " sudo jetson_clocks",
            )
    for gpu in seen.gpus:
        if gpu.highest_clock_mhz:
            found = f"{gpu.name} at {gpu.clock_mhz} of {gpu.highest_clock_mhz} MHz"
            yield Remark(OK, "clocks", found)


LOCKED = {True: "locked", False: "not locked", None: "unknown"}


def is_clock_locked(machine: Machine) -> bool | None:
    """Tell whether the GPU's lowest and highest clock are the same; None where the kernel does not show them.

    It does not for a discrete GPU, nor in a container.
    """
    places = (path for name in CLOCKS for path in machine.paths(f"/sys/class/devfreq/*{name}*/min_freq"))
    least = next(places, None)
    if least is None:
        return None
    limits = machine.read(least), machine.read(str(PurePosixPath(least).with_name("max_freq")))
    return limits[0] == limits[1] if all(limits) else None


def about_room(seen: Survey) -> Iterator[Remark]:
    total, available = seen.memory.get("MemTotal"), seen.memory.get("MemAvailable")
    if total and available:
        little = available < LITTLE_MEMORY
        yield Remark(
            NOTE if little else OK,
            "memory",
            f"{available / GIB:.1f} of {total / GIB:.1f} GiB free",
            "building an engine may need more: close what is open, add swap, or give --workspace a lower limit"
            if little
            else "",
        )
    free = seen.machine.free_bytes()
    if free is not None:
        little = free < LITTLE_DISK
        remedy = "PyTorch and TensorRT from pip take several GiB: make room first" if little else ""
        yield Remark(NOTE if little else OK, "disk", f"{free / GIB:.1f} GiB free here", remedy)


def distro_python(seen: Survey) -> Numbers:
    """Give the version of Python that apt's packages are for."""
    if seen.jetson and seen.jetson.row:
        return numbers(seen.jetson.row.python)
    return numbers((seen.machine.output("/usr/bin/python3", "-c", VERSION) or "").strip())


VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
