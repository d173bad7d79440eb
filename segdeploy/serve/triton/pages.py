"""Writes what lies beside a repository's models: how to start the server, ask it, and see whether it is right."""

from __future__ import annotations

import re
from string import Template

from segdeploy.serve.triton.config import names_beside
from segdeploy.serve.triton.request import TritonRequest
from segdeploy.serve.triton.servable import Servable
from segdeploy.version import __version__

IMAGE = "nvcr.io/nvidia/tritonserver:26.03-py3"
Models = dict[str, list[Servable]]


def pages(models: Models, request: TritonRequest) -> dict[str, bytes]:
    """Give the files by their names; `first` stands for the model in examples."""
    first = next(iter(models))
    words = {
        "image": IMAGE,
        "segdeploy": __version__,
        "first": first,
        "service": re.sub(r"[^a-z0-9-]+", "-", first).strip("-") or "model",
        "rows": "\n".join(rows(models, request)),
        "verifies": "\n".join(f"segdeploy verify triton://localhost:8001/{name}" for name in models),
        "python": PYTHON if needs_python(models, request) else "",
        "provider": "cpu,triton",
    }
    return {name: Template(text).substitute(words).encode() for name, text in TEXTS.items()}


def needs_python(models: Models, request: TritonRequest) -> bool:
    """Tell whether the server's Python has to have segdeploy for the models themselves."""
    return (
        request.jpeg
        or request.areas
        or any(one.backend == "python" for each in models.values() for one in each)
    )


def rows(models: Models, request: TritonRequest) -> list[str]:
    """Describe each model in a row of a table."""
    found = []
    for name, versions in models.items():
        newest, names = versions[-1], names_beside(name)
        size = newest.signature.size
        files = ", ".join(one.path.name.replace("|", "\\|") for one in versions)
        found.append(
            f"| `{name}` | frames uint8 N×{size.height}×{size.width}×3 RGB → labels N×{size.height}×{size.width}"
            f" | {newest.backend}: `{files}` |"
        )
        if request.jpeg:
            found.append(
                f"| `{names['jpeg']}` | an image file's bytes → labels at the image's size | an ensemble |"
            )
        if request.areas:
            found.append(
                f"| `{names['areas']}` | an image file's bytes → the share of each class, masks | python |"
            )
    return found


PYTHON = """
The models that say python, and those for image files, run segdeploy in the server: its Python needs the package, which
the Dockerfile here installs. A Triton of 24.10 and earlier needs `numpy<2` beside it: with a newer one every output is
empty, which `segdeploy verify` says.
"""

README = """# A model repository for Triton

Rendered by segdeploy $segdeploy; `rendered.json` has the digest of every file. A model's record lies beside it, in the
folder of its version.

| model | takes and gives | backend |
|---|---|---|
$rows

    docker compose up                                # or, without the honest health check:
    docker run --rm --gpus all --shm-size 1g -p 8000:8000 -p 8001:8001 -p 8002:8002 -v "$$PWD":/models:ro \\
        $image tritonserver --model-repository=/models --strict-readiness=true

Leave `--gpus all`, and compose.yaml's last line, out on a machine without a GPU. These lines and the two .yaml were not
run where segdeploy is made: it has no docker. The configurations were held against Triton's protobuf definitions, and
the Python backend ran in a real server (2.51).
$python
## Ask it

    segdeploy run triton://localhost:8001/$first street.jpg -o out
    segdeploy bench triton://localhost:8001/$first --streams 8

`triton://` is gRPC and `triton+http://` (port 8000) HTTP, `triton+grpcs://` and `triton+https://` the same over TLS.
Behind the name may stand a version (`/$first/1`), and `?memory=shared` for a client on the same host (start the server
with `--ipc=host`).

## Is it right?

`/v2/health/ready` and `/v2/models/$first/ready` go on answering 200 after a model's process has died. This sends the
golden frames that lie in the model's parameters, compares the labels with those that it was proven with, and exits with
1 where they differ or do not come in time:

```sh
$verifies
```

`compose.yaml` and `inferenceservice.yaml` (KServe) ask it so. For KServe, copy this folder to where `storageUri` says,
and push the image.
"""

COMPOSE = """# Triton on this folder; the health check asks for golden frames, and not whether the server runs.
services:
  triton:
    build: .
    image: segdeploy-triton
    command: [tritonserver, --model-repository=/models, --strict-readiness=true]
    volumes: [".:/models:ro"]
    ports: ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001", "127.0.0.1:8002:8002"]
    shm_size: 1gb
    # ipc: host   # for clients on this host that ask with ?memory=shared
    healthcheck:
      test: [CMD, segdeploy, verify, "triton://localhost:8001/$first"]
      interval: 15s
      timeout: 10s
      start_period: 120s
      retries: 3
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: all, capabilities: [gpu]}]}}}
"""

DOCKERFILE = """# Triton, and segdeploy in its Python: for the Python models, and for the health check.
FROM $image
RUN pip install --no-cache-dir 'segdeploy[$provider]'
"""

SERVICE = """# KServe: put this folder where storageUri says, and the Dockerfile's image where your cluster finds it.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: $service
spec:
  predictor:
    model:
      modelFormat: {name: triton}
      protocolVersion: grpc-v2
      storageUri: s3://BUCKET/REPOSITORY
      image: REGISTRY/segdeploy-triton:latest
      resources: {limits: {nvidia.com/gpu: "1"}}
      readinessProbe:
        httpGet: {path: /v2/health/ready, port: 8000}
      livenessProbe:   # golden frames: a model whose process has died is found, and the container started anew
        exec: {command: [segdeploy, verify, "triton://localhost:9000/$first"]}
        initialDelaySeconds: 120
        periodSeconds: 30
        timeoutSeconds: 10
"""

TEXTS = {
    "README.md": README,
    "compose.yaml": COMPOSE,
    "Dockerfile": DOCKERFILE,
    "inferenceservice.yaml": SERVICE,
}
