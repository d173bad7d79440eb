"""What can be held against the docker files without a docker daemon."""

import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "docker/Dockerfile", ROOT / "docker/Dockerfile.jetson"]
HADOLINT = shutil.which("hadolint")


def instructions(path):
    """(INSTRUCTION, its arguments) with comments dropped and continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.partition(" ")[2]) for line in joined.splitlines() if line.strip()]


def stages(path):
    """Instructions by the name of the stage; those before the first FROM under None."""
    found, name = {None: []}, None
    for instruction, rest in instructions(path):
        if instruction == "FROM":
            name = re.fullmatch(r"\S+ AS (\S+)", rest).group(1)
            found[name] = []
        found[name].append((instruction, rest))
    return found


def defaults(path):
    """ARG names and values, with earlier ones filled in."""
    values = {}
    for instruction, rest in stages(path)[None]:
        assert instruction == "ARG"
        name, _, value = rest.partition("=")
        values[name] = re.sub(r"\$\{(\w+)\}", lambda match: values[match.group(1)], value)
    return values


def let_through(path):
    """Whether .dockerignore keeps `path` of the context; its last line that fits decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.lstrip("!")
        if line and not line.startswith("#") and (fnmatch(path, pattern) or path.startswith(f"{pattern}/")):
            kept = line.startswith("!")
    return kept


def shipped(path):
    return [name for name in stages(path) if name not in (None, "wheel", "environment")]


def test_the_targets_are_those_that_are_promised():
    assert [shipped(path) for path in FILES] == [["cli", "tensorrt", "deepstream"], ["jetson"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_gets_into_the_context(path):
    copied = []
    for name, steps in stages(path).items():
        for rest in (rest for instruction, rest in steps if instruction == "COPY"):
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            origin = re.search(r"--from=(\S+)", rest)
            if origin:
                assert origin.group(1) in stages(path), name
                continue
            for source in sources:
                assert (ROOT / source).exists(), source
                assert let_through(source), source
                copied.append(source)
    project = (ROOT / "pyproject.toml").read_text()
    forced = re.findall(r'^"(\w+)" = "segdeploy/shipped_data', project, re.MULTILINE)
    assert {*forced, "segdeploy", "pyproject.toml", "README.md", "LICENSE"} == set(copied)


@pytest.mark.parametrize(
    "name", ["x.engine", ".env", ".venv/bin/python", "id_rsa", "models/demo.onnx", "tests/conftest.py"]
)
def test_what_lies_about_does_not_get_into_the_context(name):
    ignored = not let_through(name) or any(
        fnmatch(Path(name).name, line.removeprefix("**/"))
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("**/")
    )
    assert ignored


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_bases_are_pinned_and_can_be_chosen(path):
    values = defaults(path)
    for name, steps in stages(path).items():
        if name is None:
            continue
        base = re.match(r"\$\{(\w+)\} AS ", steps[0][1])
        assert base, f"{name} is not built on an ARG"
        image, _, tag = values[base.group(1)].rpartition(":")
        assert image.startswith(("nvcr.io/nvidia/", "docker.io/library/")), image
        assert re.match(r"r?\d+\.\d+", tag), tag


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_images_do_not_run_as_root_and_prove_themselves(path):
    for name in shipped(path):
        steps = stages(path)[name]
        (user,) = [rest for instruction, rest in steps if instruction == "USER"]
        assert user == "1001"
        after = steps[[instruction for instruction, _ in steps].index("USER") :]
        assert ("RUN", '["segdeploy", "doctor", "--require", "run"]') in after
        assert ("ENTRYPOINT", '["segdeploy"]') in after


@pytest.mark.parametrize("name", ["tensorrt", "deepstream"])
def test_images_for_engines_have_what_engines_need(name):
    """`doctor --require run` is about the CPU; what an engine needs is imported, or the image is not made."""
    (made,) = [rest for instruction, rest in stages(FILES[0])["environment"] if instruction == "RUN"]
    assert "pycuda==${PYCUDA}" in made
    assert "cuda-python==${CUDA}.*" in made
    own = stages(FILES[0])[name]
    assert ("COPY", "--from=environment /opt/venv /opt/venv") in own
    (step,) = [rest for instruction, rest in own if instruction == "RUN" and "apt-get" in rest]
    installed, _, then = step.partition('&& python -c "import tensorrt, pycuda, cuda.bindings.driver"')
    assert "tensorrt-cu${CUDA}==" in installed or "python3-libnvinfer" in installed
    assert "useradd" in then


@pytest.mark.parametrize("path", [*FILES, ROOT / "docker/compose.yaml"], ids=lambda path: path.name)
def test_no_secret_and_no_moving_tag(path):
    text = path.read_text()
    assert ":latest" not in text
    assert not re.search(r"(?i)(password|secret|api_?key|token)\s*[=:]", text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_versions_that_are_installed_are_arguments(path):
    for name, steps in stages(path).items():
        declared = {rest.partition("=")[0] for instruction, rest in steps if instruction == "ARG"}
        for rest in (rest for instruction, rest in steps if instruction == "RUN"):
            assert set(re.findall(r"\$\{(\w+)\}", rest)) <= declared, name
            assert "pip install" not in rest or "--no-cache-dir" in rest


def test_services_refer_to_targets_and_arguments_that_exist():
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    assert set(services) == {"cli", "tensorrt", "deepstream", "jetson", "triton"}
    for name, service in services.items():
        if "build" not in service:
            continue
        build = service["build"]
        path = ROOT / build["dockerfile"]
        assert (build["context"], build["target"]) == ("..", name)
        assert name in stages(path)
        steps = [step for steps in stages(path).values() for step in steps]
        written = {rest.partition("=")[0]: rest.partition("=")[2] for _, rest in steps}
        for argument, value in build.get("args", {}).items():
            assert value == f"${{{argument}:-{written[argument]}}}", "the same default in both files"


def test_a_gpu_is_asked_for_where_one_is_needed():
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    with_gpu = {
        name
        for name, service in services.items()
        if "deploy" in service or service.get("runtime") == "nvidia"
    }
    assert with_gpu == {"tensorrt", "deepstream", "jetson", "triton"}


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path):
    done = subprocess.run([HADOLINT, "--no-color", path], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0
