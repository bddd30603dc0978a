"""A part of a file as memory, mapped once, or twice in a row so that a ring has no seam."""

from __future__ import annotations

import ctypes
import os
import weakref

_MAP_FIXED = 0x10  # on Linux and macOS; Python's mmap cannot place a mapping, so has no name for it
_PROT_NONE = 0


def map_file(file: int, offset: int, length: int, times: int = 1) -> memoryview | None:
    """Map a part of a file for reading, so many times in a row.

    It stays mapped as long as anything refers to the memory; the file may be closed. If the file
    is cut off below it, to read there is a SIGBUS, as with any mapping.

    Args:
        file: a descriptor that can be read.
        offset: where the part begins, a multiple of the page.
        length: its bytes; when mapped more than once, a multiple of the page.
        times: how often.

    Returns:
        Read-only memory; `None` where this cannot be had (Windows, no address space).
    """
    if os.name != "posix" or ctypes.sizeof(ctypes.c_void_p) < ctypes.sizeof(ctypes.c_int64):
        return None
    import mmap

    if times > 1 and length % mmap.PAGESIZE != 0:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_int64,
    ]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    total = length * times
    failed = ctypes.c_void_p(-1).value
    # Reserved first, so that nothing else is there.
    base = libc.mmap(None, total, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if base == failed:
        return None
    for turn in range(times):
        place = base + turn * length
        flags = mmap.MAP_SHARED | _MAP_FIXED
        if libc.mmap(place, length, mmap.PROT_READ, flags, file, offset) == failed:
            libc.munmap(base, total)
            return None
    memory = (ctypes.c_ubyte * total).from_address(base)
    weakref.finalize(memory, libc.munmap, base, total).atexit = False
    return memoryview(memory).cast("B").toreadonly()
