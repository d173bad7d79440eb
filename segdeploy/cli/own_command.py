"""Says how this very segdeploy is called, so that a command that is printed works when it is pasted."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

NAME = "segdeploy"


def own_command() -> list[str]:
    """Give `segdeploy` where the shell finds this one under it; else the script's whole path, or Python's."""
    script = Path(sys.argv[0])
    if script.name != NAME:  # python -m segdeploy, or a program that calls `main`
        return [sys.executable, "-m", NAME] if script.name == "__main__.py" else [NAME]
    found = shutil.which(NAME)
    return [NAME] if found and Path(found).resolve() == script.resolve() else [str(script.absolute())]
