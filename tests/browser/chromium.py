"""Pages in Chromium: what they show, what they say in the console, what they ask the network."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.support import wait_until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

DESKTOP = (1280, 900)
PHONE = (390, 844)


class Browser:
    """Chromium without a window."""

    def __init__(self, chromium: str, driver: str) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for switch in (
            "headless=new",
            "no-sandbox",  # in a container one is root, and then there is none
            "disable-dev-shm-usage",
            "disable-background-networking",
            "disable-component-update",
            "force-color-profile=srgb",
            "hide-scrollbars",
        ):
            options.add_argument(f"--{switch}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver: Chrome = webdriver.Chrome(
            options=options, service=webdriver.ChromeService(driver)
        )

    def close(self) -> None:
        """End it."""
        self.driver.quit()

    def set_screen(self, size: tuple[int, int], *, is_dark: bool = False) -> None:
        """Be a screen of that many pixels; a narrow one is a phone, with fingers."""
        width, height = size
        is_phone = size == PHONE
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=is_phone,
        )
        self.command("Emulation.setTouchEmulationEnabled", enabled=is_phone)
        scheme = "dark" if is_dark else "light"
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", media="", features=features)

    def set_time_zone(self, name: str) -> None:
        """Be somewhere else; where the machine is if the name is empty."""
        self.command("Emulation.setTimezoneOverride", timezoneId=name)

    def open(self, uri: str) -> None:
        """Go to a page; what others have said is forgotten."""
        for log in ("browser", "performance"):
            self._log(log)
        self.driver.get(uri)

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script in the page returns."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, script: str, what: str) -> Any:
        """Wait until a script in the page returns something true."""
        look: Callable[[], Any] = lambda: self.run(script)  # noqa: E731  # its type, for mypy
        return wait_until(look, what)

    def wait_for_frames(self) -> None:
        """Wait until the page was painted, and what waits for that was told."""
        self.driver.execute_async_script(
            "const done = arguments[0];"
            "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 0)))"
        )

    def complaints(self) -> list[str]:
        """What the page has said in the console since it was opened, warnings and worse."""
        bad = ("WARNING", "SEVERE")
        return [entry["message"] for entry in self._log("browser") if entry["level"] in bad]

    def requests(self) -> list[str]:
        """What was asked for since the page was opened, the page itself included.

        Not what lies within the page: nobody is asked for that.
        """
        entries = self._log("performance")
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        uris = [one["request"]["url"] for one in sent]
        return [uri for uri in uris if not uri.startswith("data:")]

    def _log(self, name: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.driver.get_log(name)  # type: ignore[no-untyped-call]
        return entries

    def overflow(self) -> int:
        """By how many pixels the page is wider than the screen."""
        return int(self.run("return document.documentElement.scrollWidth - innerWidth"))

    def screenshot(self) -> bytes:
        """The whole page as a PNG."""
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])
