"""How the units of the catalogue are written behind numbers."""

from __future__ import annotations

SYMBOLS = {
    "percentage": "%",
    "megabytes": "MB",
    "megabytes per second": "MB/s",
    "watts": "W",
    "joules": "J",
    "celsius": "°C",
    "megahertz": "MHz",
}
PER_SECOND = " per second"
"""The end of a unit of things that are counted, which have no symbol."""
