"""What can be held against the docker files without a docker daemon."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "docker/Dockerfile", ROOT / "docker/Dockerfile.jetson"]
SHIPPED = [
    "models/demo-b0/graphs.tar.xz",
    "models/labels/cityscapes.yaml",
    "calibration/cityscapes.yaml",
    "deepstream/parser/segdeploy_parser.cpp",
    "benchmarks/devices.yaml",
    "benchmarks/reference/ngc-segformer-cityscapes.yaml",
    "selftest/graphs.tar.xz",
]
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
    """Whether .dockerignore keeps `path` of the context: of its lines that fit the path or a folder above it,
    the last decides (moby/patternmatcher)."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = ignored_by(line.lstrip("!"))
        if not line or line.startswith("#"):
            continue
        if any(pattern.fullmatch(str(place)) for place in (Path(path), *Path(path).parents)):
            kept = line.startswith("!")
    return kept


def ignored_by(pattern):
    """A pattern of .dockerignore: ** goes through folders, * and ? stay within a name."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile(
        re.sub(r"\*\*/|\*\*|\*|\?|.", lambda part: words.get(part[0], re.escape(part[0])), pattern)
    )


def copied_by(path):
    """(sources, target) of each COPY from the context, stage by stage."""
    for name, steps in stages(path).items():
        for rest in (rest for instruction, rest in steps if instruction == "COPY"):
            *sources, target = [word for word in rest.split() if not word.startswith("--")]
            origin = re.search(r"--from=(\S+)", rest)
            if origin:
                assert origin.group(1) in stages(path), name
            else:
                yield sources, target


def copy(source, target, into):
    """What COPY does: a folder's content goes into the target, a file to it, or into it where it ends in a slash."""
    whole = ROOT / source
    inside = whole if whole.is_dir() or not target.endswith("/") else whole.parent
    for file in whole.rglob("*") if whole.is_dir() else [whole]:
        if file.is_file() and let_through(file.relative_to(ROOT).as_posix()):
            place = into / target / file.relative_to(inside)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def shipped(path):
    return [name for name in stages(path) if name not in (None, "wheel", "environment")]


def test_the_targets_are_those_that_are_promised():
    assert [shipped(path) for path in FILES] == [["cli", "tensorrt", "deepstream"], ["jetson"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_gets_into_the_context(path):
    copied = [source for sources, _ in copied_by(path) for source in sources]
    for source in copied:
        assert (ROOT / source).exists(), source
        assert let_through(source), source
    project = (ROOT / "pyproject.toml").read_text()
    (shipped_in_wheel,) = re.findall(r"^only-include = \[(.*?)\]", project, re.MULTILINE | re.DOTALL)
    assert {*re.findall(r'"(.+?)"', shipped_in_wheel), "pyproject.toml", "README.md", "LICENSE"} == set(
        copied
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_wheel_is_built_of_what_is_copied_and_installs(path, tmp_path):
    """The stage's own commands, in a folder that holds what they would find; hatchling comes from this environment."""
    for sources, target in copied_by(path):
        for source in sources:
            copy(source, target, tmp_path / "source")
    (build,) = [rest for instruction, rest in stages(path)["wheel"] if instruction == "RUN"]
    wheels = tmp_path / "wheels"
    words = [sys.executable, "-m", *build.replace("/wheels", str(wheels)).split(), "--no-build-isolation"]
    done = subprocess.run(words, cwd=tmp_path / "source", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = wheels.glob("segdeploy-*.whl")
    install = ["-m", "pip", "install", "--no-deps", "--no-index", "--target"]
    subprocess.run([sys.executable, *install, tmp_path / "there", wheel], capture_output=True, check=True)
    place = tmp_path / "there/segdeploy/shipped_data"
    assert [name for name in SHIPPED if not (place / name).is_file()] == []
    code = "import segdeploy.shipped; print(segdeploy.shipped.folder('models'))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "there")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(place / "models")


@pytest.mark.parametrize(
    "name",
    [
        "x.engine",
        ".env",
        ".venv/bin/python",
        "id_rsa",
        "models/demo.onnx",
        "tests/conftest.py",
        "benchmarks/int8.py",
    ],
)
def test_what_lies_about_does_not_get_into_the_context(name):
    assert not let_through(name)


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
    assert '[cpu,cuda]" "cuda-python==${CUDA}.*"' in made
    own = stages(FILES[0])[name]
    assert ("COPY", "--from=environment /opt/venv /opt/venv") in own
    (step,) = [rest for instruction, rest in own if instruction == "RUN" and "apt-get" in rest]
    installed, _, then = step.partition('&& python -c "import tensorrt, cuda.bindings.driver"')
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


@pytest.mark.beyond_ci
@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path):
    done = subprocess.run([HADOLINT, "--no-color", path], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0
