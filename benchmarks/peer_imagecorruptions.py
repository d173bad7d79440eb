"""The benchmark's own corruptions, in an environment of its own: its pins (numba, scikit-image) are not ours.

python -m venv /some/where && /some/where/bin/pip install imagecorruptions-imaug

Takes a .npy of frames N×H×W×3; then answers each line "name severity seed" on standard input with the N corrupted
frames as raw bytes on standard output.
"""

import sys

import numpy as np
from imagecorruptions import corrupt


def main() -> None:
    frames, answer = np.load(sys.argv[1]), sys.stdout.buffer
    sys.stdout = sys.stderr  # the package prints a line now and then
    for line in sys.stdin:
        name, severity, seed = line.split()
        np.random.seed(int(seed))
        for frame in frames:
            answer.write(corrupt(frame, corruption_name=name, severity=int(severity)).tobytes())
        answer.flush()


if __name__ == "__main__":
    main()
