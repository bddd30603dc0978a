"""A file system that stops to answer when it is told to, as one of a network does.

It is a program that speaks as much of the FUSE protocol (Linux's include/uapi/linux/fuse.h) as
statvfs(3) needs. While it hangs it reads no request, so that who asks can still be killed.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

BLOCK_BYTES = 4096
BLOCKS = 1_000_000
FREE_BLOCKS = 250_000

USED_MEGABYTES = (BLOCKS - FREE_BLOCKS) * BLOCK_BYTES / 1e6
AVAILABLE_MEGABYTES = FREE_BLOCKS * BLOCK_BYTES / 1e6

_PROGRAM = f"""
import errno, os, select, struct, sys

FORGET, GETATTR, STATFS, INIT, BATCH_FORGET, DIRECTORY = 2, 3, 17, 26, 42, 0o40755
fuse = int(sys.argv[1])

def body(opcode):
    if opcode == INIT:
        return struct.pack("<IIIIHHIIHH8I", 7, 23, 0, 0, 1, 1, 4096, 1, 0, 0, *[0] * 8)
    if opcode == GETATTR:
        attributes = struct.pack("<QQQQQQ10I", 1, *[0] * 8, DIRECTORY, 2, *[0] * 5)
        return struct.pack("<QII", 0, 0, 0) + attributes
    if opcode == STATFS:
        return struct.pack(
            "<5Q10I", {BLOCKS}, {FREE_BLOCKS}, {FREE_BLOCKS}, 0, 0,
            {BLOCK_BYTES}, 255, {BLOCK_BYTES}, *[0] * 7,
        )
    return None

def serve():
    request = os.read(fuse, 1 << 17)
    opcode, unique = struct.unpack_from("<IQ", request, 4)
    if opcode in (FORGET, BATCH_FORGET):
        return
    answer = body(opcode)
    error = -errno.ENOSYS if answer is None else 0
    answer = answer or b""
    os.write(fuse, struct.pack("<IiQ", 16 + len(answer), error, unique) + answer)

is_dead = False
while True:
    ready, _, _ = select.select([0] if is_dead else [0, fuse], [], [])
    if 0 in ready:
        command = os.read(0, 1)
        if not command:
            break
        is_dead = command == b"d"
        os.write(1, command)
    elif fuse in ready:
        serve()
"""


class HangingMount:
    """A mount that answers until it is told to hang."""

    def __init__(self, path: Path) -> None:
        self.path = path
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._mount(device)
            self._server = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(device)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[device],
            )
        finally:
            os.close(device)

    def _mount(self, device: int) -> None:
        self.path.mkdir(exist_ok=True)
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"test", os.fsencode(self.path), b"fuse.test", 0, options) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot mount: {os.strerror(number)}")

    def _tell(self, command: bytes) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(command)
        self._server.stdin.flush()
        assert self._server.stdout.read(1) == command

    def hang(self) -> None:
        """From here on it answers nobody."""
        self._tell(b"d")

    def answer(self) -> None:
        """It answers again, also who has asked before."""
        self._tell(b"a")

    def close(self) -> None:
        """Unmount it; who still waits gets an error."""
        self._server.communicate(timeout=30)
        subprocess.run(["umount", "-l", self.path], check=True)
