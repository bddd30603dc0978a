"""The command line: `sysmetrics-native`, one module for each verb."""

from __future__ import annotations

from sysmetrics_native.cli.main import main

__all__ = ["main"]
