"""Report pages taken apart."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Page(HTMLParser):
    """What is on a page: its text, its elements, its scripts, the numbers of its charts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.text = ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag in ("script", "style"):
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        if tag in ("p", "li", "h1", "h2", "h3", "dt", "dd", "figcaption", "td", "th"):
            self.text += "\n"

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside == "style":
            self.styles[-1] += data
        else:
            self.text += data.replace("\N{NO-BREAK SPACE}", " ")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def policy(self) -> str:
        """What it may load and run."""
        (policy,) = [
            meta["content"]
            for meta in self.all("meta")
            if meta.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy is not None
        return policy

    @property
    def data(self) -> dict[str, Any]:
        """What its script draws."""
        places = [at for at, one in enumerate(self.all("script")) if one.get("id") == "data"]
        content: dict[str, Any] = json.loads(self.scripts[places[0]])
        return content

    def line(self, label: str) -> dict[str, Any]:
        """The one line with that label, its numbers as arrays."""
        data = self.data
        line: dict[str, Any]
        (line,) = [
            one for chart in data["charts"] for one in chart["lines"] if one["label"] == label
        ]
        packed = {"x": data["times"][line["x"]]} | {
            name: line[name] for name in ("y", "low", "high")
        }
        return line | {name: text and numbers(text) for name, text in packed.items()}


def numbers(text: str) -> NDArray[np.float32]:
    """The numbers of a line as the page has them."""
    return np.frombuffer(base64.b64decode(text), "<f4")
