"""Makes findings about installed software: TensorRT's flavours, runtimes, picture and video libraries, DeepStream."""

from __future__ import annotations

from collections.abc import Iterator

from segdeploy.doctor.finding import NOTE, OK, PROBLEM, Remark
from segdeploy.doctor.hardware import distro_python, home_of_python, pip_tensorrt, sees_system_packages
from segdeploy.doctor.survey import Survey, dotted, numbers
from segdeploy.flavour import Version
from segdeploy.model.known_bad import EFFECTS, known_bad
from segdeploy.releases import release_of
from segdeploy.run.runtimes import RUNTIMES

OPENCVS = (
    "opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless",
)  # fmt: skip
JUDGED_RUNTIMES = ("onnxruntime", "tensorrt")  # modules with their own findings below
APT_TENSORRT = "sudo apt-get install python3-libnvinfer"


def about_tensorrt(seen: Survey) -> Iterator[Remark]:
    subject, probe = "TensorRT", seen.probes.get("tensorrt")
    if seen.jetson and seen.pip_tensorrt and not seen.jetson.takes_pip:
        names = " ".join(name for name in ("tensorrt", *seen.pip_tensorrt) if seen.has(name))
        yield Remark(
            PROBLEM,
            subject,
            f"{next(iter(seen.pip_tensorrt.values()))} from pip on JetPack {seen.jetson.jetpack}: its wheels for"
            " aarch64 are for servers, they install on a Jetson and then do not run (before JetPack 7.2.2)",
            "remove them and take JetPack's own TensorRT from apt",
            f"pip uninstall -y {names} && {APT_TENSORRT}",
        )
    elif probe is None:
        yield from about_no_tensorrt(seen)
    elif "error" in probe:
        yield broken_tensorrt(seen, str(probe["error"]))
    else:
        yield from about_this_tensorrt(seen, probe)


def about_no_tensorrt(seen: Survey) -> Iterator[Remark]:
    subject, python = "TensorRT", seen.python
    if seen.apt_bindings:
        yield hidden_tensorrt(seen)
    elif seen.jetson:
        yield Remark(
            PROBLEM, subject, "no Python bindings", "JetPack has them in apt, not in pip", APT_TENSORRT
        )
    elif seen.gpus:
        yield Remark(
            NOTE, subject, "not installed", "to build and run engines", pip_tensorrt(seen.driver_cuda)
        )
    elif python["system"] == "Linux":
        yield Remark(NOTE, subject, "not installed", "it needs an NVIDIA GPU, even to build an engine")


def hidden_tensorrt(seen: Survey) -> Remark:
    """Say why this Python does not see apt's bindings, which are for the distribution's own Python."""
    python, wanted = seen.python, distro_python(seen)
    own = numbers(python["version"])[:2]
    where = f"apt's bindings are in {seen.apt_bindings[0]}"
    if home_of_python(seen) in ("of conda", "of pyenv") or (wanted and own != wanted):
        of = f" of Python {dotted(wanted)}" if wanted else ""
        return Remark(
            PROBLEM,
            "TensorRT",
            f"{where}, which Python {dotted(own)} {home_of_python(seen)} cannot import",
            f"make an environment{of} that sees the system's packages, and install segdeploy there",
            "/usr/bin/python3 -m venv --system-site-packages ~/segdeploy",
        )
    if python["prefix"] != python["base_prefix"] and not sees_system_packages(seen):
        return Remark(
            PROBLEM,
            "TensorRT",
            f"{where}, which this virtual environment does not see",
            "let it see the system's packages; what is installed in it stays",
            f"/usr/bin/python3 -m venv --system-site-packages {python['prefix']}",
        )
    return Remark(
        PROBLEM,
        "TensorRT",
        f"{where}, and this Python {dotted(own)} does not look there",
        "run segdeploy with /usr/bin/python3 or in an environment made by it",
        "/usr/bin/python3 -m venv --system-site-packages ~/segdeploy",
    )


def broken_tensorrt(seen: Survey, error: str) -> Remark:
    lacks_library = "cannot open shared object file" in error or "libnvinfer" in error
    bindings = next((name for name in seen.pip_tensorrt if name.endswith("_bindings")), "")
    libraries = bindings.replace("_bindings", "_libs")
    if lacks_library and bindings and not seen.has(libraries):
        return Remark(
            PROBLEM,
            "TensorRT",
            f"{bindings} {seen.packages[bindings]} is there without its libraries ({error})",
            "install the libraries of the same version",
            f"pip install {libraries}=={seen.packages[bindings]}",
        )
    return Remark(
        PROBLEM,
        "TensorRT",
        f"its bindings cannot be imported: {error}",
        "install bindings and libraries together, of one version",
        APT_TENSORRT
        if seen.jetson
        else f"pip install --force-reinstall {pip_tensorrt(seen.driver_cuda)[12:]}",
    )


def about_this_tensorrt(seen: Survey, probe: dict[str, str]) -> Iterator[Remark]:
    subject, version = "TensorRT", probe["version"]
    library = probe.get("library_version", version)
    majors = sorted({name[9:13] for name in seen.pip_tensorrt if name[9:11] == "cu"})
    if numbers(library)[:3] != numbers(version)[:3]:
        yield Remark(
            PROBLEM,
            subject,
            f"bindings {version} with the libraries {library} ({probe['library']})",
            "install bindings and libraries of one version, and remove the other from LD_LIBRARY_PATH",
        )
        return
    if len(majors) > 1:
        names = " ".join(name for name in ("tensorrt", *seen.pip_tensorrt) if seen.has(name))
        yield Remark(
            PROBLEM,
            subject,
            f"{version}, installed for {' and '.join(majors)}: they overwrite each other's files",
            "remove all and install one",
            f"pip uninstall -y {names} && {pip_tensorrt(seen.driver_cuda)}",
        )
        return
    origin = f"pip, {majors[0]}" if majors else "pip" if seen.pip_tensorrt else "apt"
    yield Remark(OK, subject, f"{version} ({origin}), bindings and libraries match")
    yield from about_reports(seen, version)
    others = {name: found for name, found in seen.apt.items() if name.startswith("libnvinfer")}
    if seen.pip_tensorrt and others:
        listed = ", ".join(f"{name} {found}" for name, found in others.items())
        yield Remark(
            NOTE,
            subject,
            f"apt's {listed} beside it",
            f"an engine runs on the version that built it: Python's is {version}, trtexec's and DeepStream's is apt's",
        )


def about_reports(seen: Survey, version: str) -> Iterator[Remark]:
    """Name the kinds of graphs that this TensorRT is reported to do wrongly, on the GPUs that are here."""
    capabilities = tuple(dotted(gpu.compute_capability) for gpu in seen.gpus if gpu.compute_capability)
    for row in known_bad():
        if row.applies(Version.parse(version), capabilities):
            yield Remark(NOTE, "TensorRT", f"by a report it {EFFECTS[row.effect]}: {row}", row.cure)


def about_rtx(seen: Survey) -> Iterator[Remark]:
    probe = seen.probes.get("tensorrt_rtx")
    if probe is None:
        if not seen.jetson:
            yield Remark(
                NOTE,
                "TensorRT-RTX",
                "not installed",
                "it builds engines for GeForce and RTX without a GPU",
                "pip install 'segdeploy[rtx]'",
            )
    elif "error" in probe:
        yield Remark(
            PROBLEM,
            "TensorRT-RTX",
            f"cannot be imported: {probe['error']}",
            "install it again",
            "pip install --force-reinstall 'tensorrt-rtx'",
        )
    else:
        yield Remark(OK, "TensorRT-RTX", str(probe["version"]))


def about_onnxruntime(seen: Survey) -> Iterator[Remark]:
    subject, probe = "onnxruntime", seen.probes.get("onnxruntime")
    if seen.has("onnxruntime", "onnxruntime-gpu"):
        kept = "onnxruntime-gpu" if seen.gpus else "onnxruntime"
        yield Remark(
            PROBLEM,
            subject,
            f"onnxruntime {seen.packages['onnxruntime']} and onnxruntime-gpu {seen.packages['onnxruntime-gpu']}"
            " overwrite each other's files",
            "remove both and install one",
            f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install {kept}",
        )
    elif probe is None:
        yield Remark(
            PROBLEM, subject, "not installed", "to run anything on the CPU", "pip install 'segdeploy[cpu]'"
        )
    elif "error" in probe:
        kept = "onnxruntime-gpu" if seen.has("onnxruntime-gpu") else "onnxruntime"
        yield Remark(
            PROBLEM,
            subject,
            f"cannot be imported: {probe['error']}",
            "install it again",
            f"pip install --force-reinstall {kept}",
        )
    else:
        names = [name.removesuffix("ExecutionProvider") for name in probe["providers"]]
        yield Remark(OK, subject, f"{probe['version']}, providers {', '.join(names)}")


def about_further_runtimes(seen: Survey) -> Iterator[Remark]:
    """Name each further runtime that is installed; none is needed, so a missing one is no finding."""
    for runtime in RUNTIMES:
        version = next((seen.packages[name] for name in runtime.packages if seen.has(name)), None)
        if version and runtime.module not in JUDGED_RUNTIMES:
            how = f"--provider {runtime.provider}" if runtime.provider else f"models at {runtime.takes}"
            yield Remark(OK, runtime.title, f"{version}, {how}")


def about_cuda_packages(seen: Survey) -> Iterator[Remark]:
    """Report on cuda-python, through which engines run, and on PyCUDA, which may take its place but is not needed."""
    if not seen.gpus:
        return
    probe = seen.probes.get("cuda.bindings")
    if probe is None or "error" in probe:
        yield Remark(
            NOTE,
            "cuda-python",
            "not installed" if probe is None else f"cannot be imported: {probe['error']}",
            "engines and their CUDA graphs run through it",
            "pip install 'cuda-python<13'"
            if (13,) > seen.driver_cuda > ()
            else "pip install 'segdeploy[cuda]'",
        )
    else:
        yield Remark(OK, "cuda-python", str(probe["version"]))
    probe = seen.probes.get("pycuda", {})
    if "error" in probe:
        yield Remark(
            NOTE, "PyCUDA", f"cannot be imported: {probe['error']}", "cuda-python takes its place: remove it",
            "pip uninstall -y pycuda",
        )  # fmt: skip
    elif probe:
        yield Remark(OK, "PyCUDA", f"{seen.packages.get('pycuda', 'there')}, engines run through it")


def about_torch(seen: Survey) -> Iterator[Remark]:
    if not seen.has("torch"):
        yield Remark(
            NOTE, "torch", "not installed", "only export needs it", "pip install 'segdeploy[export]'"
        )
        return
    built = f"for CUDA {seen.torch_cuda}" if seen.torch_cuda else "for the CPU, which is enough to export"
    yield Remark(OK, "torch", f"{seen.packages['torch']}, built {built}")


def about_opencv(seen: Survey) -> Iterator[Remark]:
    installed, probe = [name for name in OPENCVS if seen.has(name)], seen.probes.get("cv2")
    if len(installed) > 1:
        yield Remark(
            PROBLEM,
            "OpenCV",
            f"{' and '.join(installed)} overwrite each other's files",
            "remove all and install one",
            f"pip uninstall -y {' '.join(installed)} && pip install opencv-python-headless",
        )
    elif probe is None or "error" in probe:
        yield Remark(
            PROBLEM,
            "OpenCV",
            f"cannot be imported: {probe['error']}" if probe else "not installed",
            "it reads and draws every picture",
            "pip install --force-reinstall opencv-python-headless",
        )
    else:
        reads = [
            word for word, there in (("FFmpeg", probe["ffmpeg"]), ("GStreamer", probe["gstreamer"])) if there
        ]
        origin = installed[0] if installed else "not from pip"
        found = f"{probe['version']} ({origin}), video through {' and '.join(reads) or 'nothing'}"
        if seen.jetson and not probe["gstreamer"]:
            remedy = (
                "a CSI camera needs GStreamer: take JetPack's or the distribution's python3-opencv for those"
            )
            yield Remark(NOTE, "OpenCV", found, remedy)
        else:
            yield Remark(OK, "OpenCV", found)


def about_media(seen: Survey) -> Iterator[Remark]:
    for subject, command, why in (
        ("ffmpeg", "ffmpeg", "to write video and read streams"),
        ("GStreamer", "gst-launch-1.0", "DeepStream and CSI cameras need it"),
    ):
        said = next((word for word in seen.outputs.get(command, "").split() if numbers(word.lstrip("n"))), "")
        if command in seen.outputs:
            yield Remark(OK, subject, said or "there")
        else:
            yield Remark(NOTE, subject, "not found", why)


def about_deepstream(seen: Survey) -> Iterator[Remark]:
    if not seen.deepstreams:
        if seen.gpus:
            yield Remark(
                NOTE,
                "DeepStream",
                "no SDK in /opt/nvidia/deepstream",
                "only segdeploy deepstream needs it; the target deepstream of docker/Dockerfile brings it",
            )
        return
    for version, path in seen.deepstreams.items():
        row = release_of(version)
        made = ""
        if row:
            made = f", made for TensorRT {row.tensorrt_jetson if seen.jetson else row.tensorrt}"
        yield Remark(OK, "DeepStream", f"{version} in {path}{made}")
    if len(seen.deepstreams) > 1:
        yield Remark(
            NOTE, "DeepStream", "several SDKs", "the link /opt/nvidia/deepstream/deepstream chooses one"
        )
    if seen.tao_app:
        yield Remark(OK, "ds-tao-segmentation", seen.tao_app)
    else:
        yield Remark(
            NOTE,
            "ds-tao-segmentation",
            "not found",
            "NVIDIA's app is built from deepstream_tao_apps; our parser and pipelines do not need it",
        )
