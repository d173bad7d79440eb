"""The machine is named by what its speed and its rounding depend on."""

from types import SimpleNamespace

import pytest

from segdeploy import machine
from segdeploy.machine import (
    MachineFacts,
    adds_bytes_in_16_bits,
    cpu_model,
    kind_of_cpu,
    this_machine,
    version_of,
)

CPU = "processor\t: {}\nmodel name\t: Abacus 3\nmodel\t: 1\ncpu MHz\t: {}\nflags\t\t: {}\n\n"


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


def test_one_cpu_is_told_from_another_by_what_it_computes(cpuinfo):
    seen = []
    for clock, flags in ((2400, "avx2"), (3100, "avx2"), (2400, "avx2 avx512_bf16")):
        cpuinfo.write_text(CPU.format(0, clock, flags) + CPU.format(1, clock, "other"))
        assert cpu_model() == "Abacus 3"
        seen.append(kind_of_cpu())
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [
        ("avx2", True), ("avx2 avx512f", True), ("avx2 avx_vnni", False), ("avx512f avx512_vnni", False),
        ("avx512f amx_int8", False),
    ],
)  # fmt: skip
def test_vnni_adds_products_of_bytes_in_32_bits(flags, saturates, cpuinfo):
    cpuinfo.write_text(CPU.format(0, 2400, flags))
    assert adds_bytes_in_16_bits() is saturates


def test_a_cpu_that_is_not_x86_adds_as_it_should(cpuinfo):
    cpuinfo.write_text("processor\t: 0\nFeatures\t: asimd\n\n")
    assert not adds_bytes_in_16_bits()


def test_a_system_without_proc_has_a_kind_too(cpuinfo):
    assert len(kind_of_cpu()) == 16
    assert cpu_model()


def test_it_is_put_into_words():
    assert str(MachineFacts("Abacus 3", "k", 1)) == "Abacus 3, 1 core"
    assert str(MachineFacts("Abacus 3", "k", 2, ("T4", "T4"))) == "Abacus 3, 2 cores and T4 and T4"
    assert this_machine().cores >= 1


def test_versions():
    assert version_of("numpy")
    assert version_of("no-such-package") == ""


@pytest.mark.parametrize("library", [SimpleNamespace(), None])
def test_another_c_library_keeps_what_was_freed(library, monkeypatch):
    def loaded(name):
        if library is None:
            raise OSError("no such library")
        return library

    monkeypatch.setattr(machine.ctypes, "CDLL", loaded)
    machine.give_free_memory_back()


def test_glibc_is_asked_to_give_memory_back(monkeypatch):
    asked = []
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: SimpleNamespace(malloc_trim=asked.append))
    machine.give_free_memory_back()
    assert asked == [0]
