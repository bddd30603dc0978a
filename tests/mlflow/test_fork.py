"""Processes that are forked while a run is monitored: one series, and children that end at once."""

from __future__ import annotations

import os
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tests.mlflow.conftest import StartProgram
from tests.mlflow.logged import DEFAULT_KEYS, Logged
from tests.mlflow.programs import Program
from tests.mlflow.server import Server
from tests.support import BACKENDS_HERE

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
