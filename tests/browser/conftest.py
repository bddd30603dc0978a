"""A real browser: the Chromium of the system, without a window."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.browser.chromium import Browser

_PROGRAMS = ("chromium", "chromedriver")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """It takes long, so only the main run has it."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests; each opens pages of its own."""
    pytest.importorskip("selenium", reason="selenium, of the group test-browser, is not installed")
    paths = {name: shutil.which(name) for name in _PROGRAMS}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        reason = f"needs {' and '.join(missing)} (Debian: apt install chromium chromium-driver)"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    browser = Browser(str(paths["chromium"]), str(paths["chromedriver"]))
    yield browser
    browser.close()
