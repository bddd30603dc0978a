"""The worked example of CONTRIBUTING.md is built and run as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FILE = re.compile(r"<!-- file: (?P<path>\S+) -->\n```c\n(?P<text>.*?)```\n", re.DOTALL)
LINE = re.compile(
    r'<!-- line: (?P<path>\S+) after "(?P<before>[^"]+)" -->\n```c\n(?P<text>.*?)```\n', re.DOTALL
)

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the C core is built on Linux only"
)


def follow_the_example(tree: Path) -> None:
    """Do in a copy of the repository what CONTRIBUTING.md says."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for match in FILE.finditer(text):
        (tree / match["path"]).write_text(match["text"], encoding="utf-8")
    for match in LINE.finditer(text):
        path = tree / match["path"]
        lines = path.read_text(encoding="utf-8").splitlines()
        (place,) = [i for i, line in enumerate(lines) if line.startswith(match["before"])]
        lines.insert(place + 1, match["text"].rstrip())
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_source_is_one_file_one_line_and_one_test(tmp_path: Path) -> None:
    for folder in ("csrc", "tests/csrc"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    follow_the_example(tmp_path)

    changed = {
        str(path.relative_to(tmp_path))
        for path in tmp_path.rglob("*")
        if path.is_file() and before.get(path) != path.read_bytes()
    }
    assert changed == {"csrc/sources/entropy.c", "csrc/sources.c", "tests/csrc/test_entropy.c"}

    support = [
        path
        for path in (tmp_path / "tests/csrc").glob("*.c")
        # What takes the place of a part of the core cannot stand beside it without a library.
        if not path.stem.startswith(("test_", "scripted_"))
    ]
    program = tmp_path / "test_entropy"
    subprocess.run(
        [
            *shlex.split(os.environ.get("CC") or "cc"),
            *("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Werror"),
            *("-I", tmp_path / "csrc", "-I", tmp_path / "tests/csrc", "-o", program),
            *(tmp_path / "csrc").rglob("*.c"),
            *support,
            tmp_path / "tests/csrc/test_entropy.c",
            *("-lpthread", "-lm"),
        ],
        check=True,
    )
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 checks, 0 failed" in done.stdout
