"""Writes data/tensorrt_symbols.tsv: what the Python bindings of each TensorRT that we claim really hold.

    pip download --no-deps -d wheels tensorrt_bindings==8.6.1
    pip download --no-deps -d wheels tensorrt_cu12_bindings==10.3.0          (and 10.16.1.11, 11.4.0.106)
    python tests/make_tensorrt_symbols.py wheels/*.whl

The wheels hold the bindings without TensorRT itself. Over a stub of its libraries they import, with nothing to build
or run, and their classes can be looked at. Needs a C compiler and the Python that the wheels are for.
"""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

TABLE = Path(__file__).parent / "data" / "tensorrt_symbols.tsv"
LIBRARIES = ("nvinfer", "nvonnxparser", "nvparsers", "nvinfer_plugin")
ENTRIES = (
    "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL getPluginRegistry"
    " getBuilderPluginRegistry createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL"
    " getNvOnnxParserVersion initLibNvInferPlugins _ZN11nvuffparser15createUffParserEv"
    " _ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi _ZN14nvcaffeparser117createCaffeParserEv"
    " _ZN14nvcaffeparser123shutdownProtobufLibraryEv"
)
CLASSES = (
    "Builder BuilderFlag DataType DeviceType Dims EngineCapability EngineInspector ExecutionContextAllocationStrategy"
    " HardwareCompatibilityLevel IBuilderConfig ICudaEngine IExecutionContext IHostMemory IInt8Calibrator"
    " IInt8EntropyCalibrator2 ILayer ILogger INetworkDefinition IOptimizationProfile IProfiler IProgressMonitor"
    " IRuntimeConfig ITensor ITimingCache LayerInformationFormat LayerType Logger MemoryPoolType"
    " NetworkDefinitionCreationFlag OnnxParser OnnxParserFlag ParserError ProfilingVerbosity QuantizationFlag Runtime"
    " TensorIOMode TensorLocation"
)

LOOK = """
import ctypes, json, sys
folder, classes = sys.argv[1], sys.argv[2].split()
sys.path.insert(0, folder)
import tensorrt_bindings as module
found = [name for name in dir(module) if not name.startswith("_")]
for name in classes:
    if hasattr(module, name):
        found += [f"{name}.{one}" for one in dir(getattr(module, name)) if not one.startswith("_")]
print(json.dumps([module.__version__, found]))
"""


def look(wheel: str, folder: Path) -> tuple[str, list[str]]:
    """The version and the names in the bindings of one wheel."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    binary = next(folder.glob("tensorrt_bindings/tensorrt*.so")).read_bytes()
    named = re.search(rb"libnvinfer\.so\.(\d+)", binary)
    assert named, "bindings that load no libnvinfer"
    major = named[1].decode()
    source = folder / "stub.c"
    source.write_text("".join(f"void *{entry}(void) {{ return 0; }}\n" for entry in ENTRIES.split()))
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        options = ["-shared", "-fPIC", f"-Wl,-soname,{name}"]
        subprocess.run(["cc", *options, "-o", folder / name, source], check=True)
    command = [sys.executable, "-c", LOOK, str(folder), CLASSES]
    done = subprocess.run(
        command, env={"LD_LIBRARY_PATH": str(folder)}, check=True, stdout=subprocess.PIPE, text=True
    )
    version, names = json.loads(done.stdout)
    return version, names


def main(wheels: list[str]) -> None:
    seen: dict[str, set[str]] = {}
    for wheel in wheels:
        with tempfile.TemporaryDirectory() as folder:
            version, names = look(wheel, Path(folder))
        seen[".".join(version.split(".")[:3])] = set(names)
    versions = sorted(seen, key=lambda version: [int(part) for part in version.split(".")])
    rows = ["\t".join(["symbol", *versions])]
    for name in sorted(set().union(*seen.values())):
        rows.append("\t".join([name, *("yes" if name in seen[version] else "-" for version in versions)]))
    TABLE.write_text("\n".join(rows) + "\n")
    print(f"{TABLE}: {len(rows) - 1} symbols of {', '.join(versions)}")


if __name__ == "__main__":
    main(sys.argv[1:])
