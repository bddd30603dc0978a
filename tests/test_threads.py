"""Threads of ours take no signal of the program."""

from __future__ import annotations

import signal

import pytest

from tests.support import run_python

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "pthread_sigmask"), reason="needs signals of threads"
)

# The main thread blocks SIGTERM once all threads run; were one of them open to it, the process
# would die of it, or its handler would run.
PROGRAM = """
    import os, signal, sys, time
    from sysmetrics_native import Sampler
    from sysmetrics_native.threads import Thread

    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    thread = Thread("ours", time.sleep, [60])
    thread.start()
    sampler = Sampler(0.01, backend=sys.argv[1])
    sampler.start()
    time.sleep(0.1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    for number in (signal.SIGTERM, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    time.sleep(0.3)
    print(sorted(signal.sigpending()) == sorted({signal.SIGTERM, signal.SIGUSR1}), seen)
    print(thread.daemon, thread.is_alive(), sampler.next_window(timeout=5) is not None)
    sys.stdout.flush()
    os._exit(0)
"""


def test_what_the_program_blocks_stays_blocked(backend: str) -> None:
    done = run_python(PROGRAM, backend)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == ["True []", "True True True"]
