"""Traffic that comes in bursts: what a spike looks like that a mean hides."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

BURST_SECONDS = 0.03
PERIOD_SECONDS = 1.0

_DATAGRAM = bytes(50_000)


def _send_for(seconds: float, sender: socket.socket) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sender.send(_DATAGRAM)


@contextlib.contextmanager
def loopback_bursts() -> Iterator[None]:
    """Once a second, loopback is busy for 30 ms."""
    stop = threading.Event()
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # which never reads
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())

        def send() -> None:
            begin = time.monotonic()
            number = 0
            while not stop.wait(max(0.0, begin + number * PERIOD_SECONDS - time.monotonic())):
                _send_for(BURST_SECONDS, sender)
                number += 1

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
