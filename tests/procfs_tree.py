"""A folder that stands in for /proc, and a native sampler on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sysmetrics_native import Sampler, Window
from tests.support import wait_until

NET_DEV_HEADINGS = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast"
    "|bytes    packets errs drop fifo colls carrier compressed\n"
)


class ProcfsTree:
    """Files that are rewritten in place, as the kernel's change under who holds them open."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # Without a `self` of our own pid the procfs is somebody else's, and then 1/net/dev counts.
        (root / "self").symlink_to(str(os.getpid()))
        (root / "net").mkdir()
        (root / str(os.getpid())).mkdir()
        # The disk is one of this machine, so that no thread of its own reads it.
        self.write("self/mountinfo", "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n")
        self.write_stat([0, 0, 0, 0])
        self.write_meminfo(MemTotal=1000, MemAvailable=250)
        self.write_net_dev({"lo": (0, 0)})

    def write(self, name: str, content: str | bytes) -> None:
        """One system call, so that no reader sees half of it (if the length stays the same)."""
        data = content.encode() if isinstance(content, str) else content
        descriptor = os.open(self.root / name, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            if os.fstat(descriptor).st_size > len(data):
                os.ftruncate(descriptor, len(data))
            assert os.pwrite(descriptor, data, 0) == len(data)
        finally:
            os.close(descriptor)

    def write_stat(self, fields: Sequence[int], rest: str = "") -> None:
        self.write("stat", "cpu  " + " ".join(f"{field:>12}" for field in fields) + "\n" + rest)

    def write_meminfo(self, **kib: int) -> None:
        self.write("meminfo", "".join(f"{key}:{value:>16} kB\n" for key, value in kib.items()))

    def write_net_dev(
        self, interfaces: Mapping[str, tuple[int, int]], name: str = "net/dev"
    ) -> None:
        """Bytes received and sent; a packet for every thousand, so both grow together."""
        lines = [
            f"{interface}: {received} {received // 1000} 0 0 0 0 0 0 {sent} {sent // 1000}"
            + " 0" * 6
            for interface, (received, sent) in interfaces.items()
        ]
        self.write(name, NET_DEV_HEADINGS + "".join(f"{line:>140}\n" for line in lines))

    def sampler(self, **options: object) -> Sampler:
        return Sampler(backend="native", procfs_path=self.root, **options)  # type: ignore[arg-type]


def calls(sampler: Sampler, source: str) -> int:
    return int(sampler.stats()["sources"][source]["calls"])


def errors(sampler: Sampler) -> dict[str, int]:
    """How often each source failed, of those that did."""
    sources = sampler.stats()["sources"]
    return {name: source["errors"] for name, source in sources.items() if source["errors"]}


def wait_for_reading(sampler: Sampler, source: str) -> None:
    """Until the source was read from beginning to end at least once from now on."""
    reached = calls(sampler, source) + 2
    wait_until(lambda: calls(sampler, source) >= reached, f"two readings of {source}")


def wait_for_next_reading(sampler: Sampler, source: str) -> None:
    """Until the source has just been read."""
    reached = calls(sampler, source) + 1
    wait_until(lambda: calls(sampler, source) >= reached, f"a reading of {source}")


def windows_of(sampler: Sampler) -> list[Window]:
    """Every window that nobody has taken, of a sampler that was stopped."""
    return list(sampler.windows(timeout=0))


def only_window(sampler: Sampler) -> Window:
    (window,) = windows_of(sampler)
    return window


def one_window(
    tree: ProcfsTree, change: Callable[[], object], **options: object
) -> tuple[Window, Sampler]:
    """A window whose two readings are before and after the change, whatever the time it takes."""
    sampler = tree.sampler(**options)
    sampler.start()
    change()
    sampler.stop()
    return only_window(sampler), sampler
