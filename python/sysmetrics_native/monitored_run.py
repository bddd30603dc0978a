"""The run that `sysmetrics-native run` monitors from outside: so that it is not monitored twice.

The command is told in its environment. A monitor that it starts for that very run is inert, whether
by MLflow's switches or by hand; any other run of the command is monitored as usual. The environment
may travel to other machines, as with ``srun``, which nobody there has under observation: so the
machine is named, too.
"""

from __future__ import annotations

import os

VARIABLE = "SYSMETRICS_NATIVE_MONITORED_RUN"


def announce(run_id: str) -> dict[str, str]:
    """What to add to the environment of the command."""
    return {VARIABLE: f"{run_id}@{_this_machine()}"}


def is_announced() -> bool:
    """Whether any run is named: one may be started here that is monitored from outside."""
    return VARIABLE in os.environ


def is_monitored_outside(run_id: str) -> bool:
    """Whether this process is the command, or one of its descendants, and that is its run."""
    value = os.environ.get(VARIABLE, "")
    return value.startswith(f"{run_id}@") and value == f"{run_id}@{_this_machine()}"


def _this_machine() -> str:
    from sysmetrics_native.private_files import this_machine

    return this_machine()
