"""Refuses a graph whose mIoU is more than MAX_DROP points below the first one's; reads `segdeploy evaluate --json`."""

import json
import sys
from pathlib import Path


def judge(report: dict, most: float) -> tuple[bool, list[str]]:
    before, after = report["models"]
    delta = after["delta"]
    low, high = (100 * delta["miou_interval"][end] for end in ("low", "high"))
    lost = -100 * delta["miou"]
    kept = lost <= most
    worst = sorted((change, name) for name, change in delta["iou"].items() if change is not None)[:3]
    return kept, [
        f"{'kept' if kept else 'REFUSED'}: {after['model']} scores {100 * after['scores']['miou']:.2f} mIoU,"
        f" {before['model']} {100 * before['scores']['miou']:.2f}, over {report['dataset']['images']} images",
        f"change {-lost:+.2f} points ({low:+.2f} to {high:+.2f} with other images); {most:g} may be lost",
        "worst: " + ", ".join(f"{name} {100 * change:+.2f}" for change, name in worst),
    ]


if __name__ == "__main__":
    passed, lines = judge(json.loads(Path(sys.argv[1]).read_text()), float(sys.argv[2]))
    print(*lines, sep="\n")
    sys.exit(not passed)
