"""Reads a Jetson's own sensors from the kernel's files: the module's power, the GPU's clock, over-current events.

The module's power is the rail VDD_IN where there is one (Orin Nano and NX), else the sum of all measured rails (AGX
Orin), which the result names, as some may feed others. Written from the documentation of JetPack 5 to 7 and of the
kernel's ina3221 driver; not run on a Jetson yet.
"""

from __future__ import annotations

from pathlib import Path

from segdeploy.assess.bench.meter import Reading, text_of

WHOLE = "VDD_IN"
UNCONNECTED = "NC"
CLOCKS = (
    "gpu",
    "ga10b",
    "gv11b",
)  # names of the GPU's clock: since JetPack 6; on JetPack 5, Orin's and Xavier's


class JetsonBoard:
    """Reads the module's sensors; one of the `Sensors`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._model = text_of(root / "proc/device-tree/model")
        if "jetson" not in self._model.lower():
            raise OSError("this is not a Jetson")
        rails = dict(rails_of(root))
        self._rails = [rails[WHOLE]] if WHOLE in rails else list(rails.values())
        named = WHOLE if WHOLE in rails else "the sum of " + ", ".join(rails)
        self.source = f"the module's power monitor, {named}" if rails else "no power monitor found"
        clocks = sorted((root / "sys/class/devfreq").glob("*"))
        self._gpu = next((path for path in clocks if any(name in path.name for name in CLOCKS)), None)
        self._events = self._event_counts()

    def name(self) -> str:
        return self._model

    def driver(self) -> str:
        first_line = text_of(self._root / "etc/nv_tegra_release").partition("\n")[0]
        return first_line.lstrip("# ")

    def memory_in_use(self) -> int | None:
        return None  # CPU and GPU share one memory, which the host's number counts

    def energy_joules(self) -> float | None:
        return None

    def read(self) -> Reading:
        watts = [number_in(volts) * number_in(amperes) / 1e6 for volts, amperes in self._rails]  # mV·mA
        counts = self._event_counts()
        slowed = tuple(
            f"over-current ({name})" for name, count in counts.items() if count > self._events.get(name, 0)
        )
        clock = most = None
        if self._gpu is not None:
            clock, most = (number_in(self._gpu / name) // 1_000_000 for name in ("cur_freq", "max_freq"))
        return Reading(sum(watts) if watts else None, clock, most, self._celsius(), slowed)

    def _event_counts(self) -> dict[str, int]:
        files = sorted((self._root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))
        return {file.name.partition("_")[0]: number_in(file) for file in files}

    def _celsius(self) -> int | None:
        for zone in sorted((self._root / "sys/class/thermal").glob("thermal_zone*")):
            if text_of(zone / "type").lower().startswith("gpu"):
                return number_in(zone / "temp") // 1000
        return None


def rails_of(root: Path) -> list[tuple[str, tuple[Path, Path]]]:
    """List each rail's label with its files of voltage (mV) and current (mA)."""
    found = []
    for folder in sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*")):
        for label in sorted(folder.glob("in*_label")):
            place = label.name.removeprefix("in").removesuffix("_label")
            name, files = text_of(label), (folder / f"in{place}_input", folder / f"curr{place}_input")
            if name and name != UNCONNECTED and all(file.is_file() for file in files):
                found.append((name, files))
    return found


def number_in(path: Path) -> int:
    text = text_of(path)
    return int(text) if text.lstrip("-").isdecimal() else 0


def open_board() -> JetsonBoard | None:
    try:
        return JetsonBoard()
    except OSError:
        return None
