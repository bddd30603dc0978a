"""family COUNT: a process with so many children that do nothing; prints its pid.

They end with its input, or with it.
"""

from __future__ import annotations

import os
import signal
import sys


def main(count: int) -> None:
    """Forks, then waits for the end of the input."""
    ours, theirs = os.pipe()
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os.close(theirs)
            os.read(ours, 1)  # nobody writes: this is the end of the parent
            os._exit(0)
        children.append(child)
    print(os.getpid(), flush=True)
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
