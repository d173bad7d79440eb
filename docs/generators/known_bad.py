"""Makes the table of what versions of TensorRT are reported to compute wrongly, from what the verbs themselves read."""

from __future__ import annotations

from segdeploy.graph import known_bugs

ROWS = (
    (
        "SegFormer with a batch above 1",
        known_bugs.WRONG_BATCHES,
        "NVIDIA/TensorRT#4853",
        "one image at a time, which is the default of `--batch`",
    ),
    (
        "GridSample in deformable attention (Mask2Former)",
        known_bugs.WRONG_DEFORMABLE,
        "NVIDIA/TensorRT#4813",
        "`--msda gather`; `build-engine` does it by itself",
    ),
    (
        "GridSample of opset 20 and above",
        known_bugs.WRONG_GRID_SAMPLE_20,
        "NVIDIA/TensorRT#4646",
        "opset 17 to 19, which is what `export` writes",
    ),
)


def page() -> str:
    rows = [f"| {pattern} | {versions} | {report} | {cure} |" for pattern, versions, report, cure in ROWS]
    return "\n".join(["| graph | versions | report | cure |", "|---|---|---|---|", *rows, ""])
