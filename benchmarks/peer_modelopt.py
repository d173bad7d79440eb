"""NVIDIA ModelOpt's ONNX quantiser on a graph, in an environment of its own: its pins exclude ours.

python -m venv /some/where && /some/where/bin/pip install 'nvidia-modelopt[onnx]'
"""

import sys

import numpy as np
from modelopt.onnx.quantization import quantize


def main() -> None:
    graph, images, method, output = sys.argv[1:]
    quantize(
        onnx_path=graph,
        quantize_mode="int8",
        calibration_data=np.load(images),
        calibration_method=method,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=output,
    )


if __name__ == "__main__":
    main()
