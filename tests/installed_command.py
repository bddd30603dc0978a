"""The command as users have it: installed, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).with_name("sysmetrics-native")


def run_command(
    *arguments: str | Path, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, in a folder if one is given."""
    return subprocess.run(
        [str(COMMAND), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=folder,
    )
