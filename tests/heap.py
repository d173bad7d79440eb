"""How many bytes the C library has handed out, in all its arenas: what a leak adds to, and fragmentation does not."""

import ctypes
import gc
from collections.abc import Callable
from functools import lru_cache

import pytest

FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


@lru_cache(maxsize=1)
def mallinfo2() -> Callable[[], Mallinfo2]:
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        pytest.skip("the C library is no glibc from 2.33 on, which tells what it handed out")
    library.mallinfo2.restype = Mallinfo2
    return library.mallinfo2


def bytes_in_use() -> int:
    gc.collect()
    told = mallinfo2()()
    return int(told.uordblks + told.hblkhd)


def bytes_per_call(work: Callable[[], object], before: int, calls: int) -> float:
    """What stays for each call, once `before` calls have made all that is made once."""
    for _ in range(before):
        work()
    begin = bytes_in_use()
    for _ in range(calls):
        work()
    return (bytes_in_use() - begin) / calls
