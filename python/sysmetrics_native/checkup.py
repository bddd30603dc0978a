"""`check`: whether sampling works here, and all that is known of why: what `doctor` shows.

Each part is looked at by itself, on a thread, and for so long only: one that fails, or that a
driver or a dead mount holds up, says so and leaves the others alone.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

import psutil

from sysmetrics_native import catalog, leftovers, machine, private_files, settings
from sysmetrics_native.describe import chosen_backend, find_gpus, gpu_facts, known_sources
from sysmetrics_native.fresh_import import FreshImport, installed_version, mlflow_facts
from sysmetrics_native.recorder import recordings_folder
from sysmetrics_native.redaction import error_text
from sysmetrics_native.spool import spool_folder
from sysmetrics_native.threads import Thread
from sysmetrics_native.trial import has_value, sample_everything

PACKAGE = "sysmetrics-native"

_PATIENCE_SECONDS = 2.0
_LEAST_PATIENCE_SECONDS = 0.2
_GPU_PATIENCE_SECONDS = 11.5
"""Drivers are waited for 10 s, by whoever asks them."""
_SAMPLING_PATIENCE_SECONDS = 5.0
_LEAST_SAMPLING_SECONDS = 3.0
_LONGEST_SECONDS = 14.0
"""Of all of it, however much of it hangs."""
_QUIET_SECONDS = 4.0
"""How long sampling waits for MLflow's import, which would be most of what it sees, to be over."""
_SLOW_DRIVER_SECONDS = 4.0
"""A driver that needs longer to say what there is is not waited for a second time."""

_STEP_SECONDS = 0.1
"""What the wall clock may differ by without having been set."""
_OF_SOME_MACHINES = {"container", "gpu"}
"""In `default`, though only some machines have them."""

Facts = dict[str, Any]


def check() -> Facts:
    """Look at everything. Takes about 3 s, and less than 15 s whatever hangs.

    An environment variable whose value is not allowed is said, and then left out of account, so
    that the rest can be looked at.

    Returns:
        ``{"works", "problems", "warnings", "version", "backend", "machine", "permissions",
        "sampling", "gpu", "control_groups", "clock", "mlflow", "settings", "files", "extras"}``.
        ``works`` is whether a window with values came, as a run would have it with the settings
        in force; ``problems`` says why not, ``warnings`` what else deserves a look, both as
        sentences. Each of the others from ``backend`` on is a mapping with a ``problem``, `None`
        or a sentence; one that could not be looked at has nothing else in it. docs/cli.md lists
        their keys. Numbers that are not known are `None`.
    """
    deadline = time.monotonic() + _LONGEST_SECONDS
    offset = machine.wall_clock_offset()
    facts: Facts = {"version": importlib.metadata.version(PACKAGE)}
    facts["settings"] = _settings()
    wrong = [one["origin"] for one in facts["settings"]["options"] if one["problem"]]
    with _without(wrong):  # while nothing else is at work
        sysfs = settings.option("sysfs_path")
        facts["clock"] = _part(lambda: machine.clocks(sysfs))
    with FreshImport() as mlflow, _without(wrong):
        _look_around(facts, mlflow, deadline)
    facts["clock"]["wall_clock_step_seconds"] = machine.wall_clock_offset() - offset
    facts["problems"] = list(_problems(facts))
    facts["warnings"] = list(_warnings(facts))
    facts["works"] = not facts["problems"]
    return {name: facts[name] for name in ORDER}


ORDER = (
    *("works", "problems", "warnings", "version", "backend", "machine", "permissions", "sampling"),
    *("gpu", "control_groups", "clock", "mlflow", "settings", "files", "extras"),
)


def _look_around(facts: Facts, mlflow: FreshImport, deadline: float) -> None:
    procfs, sysfs = settings.option("procfs_path"), settings.option("sysfs_path")
    facts["backend"] = _part(_backend)
    name = facts["backend"].get("name", "psutil")
    facts["machine"] = _part(lambda: machine.identity(procfs, sysfs))
    facts["permissions"] = _part(lambda: machine.permissions(procfs, sysfs))
    facts["control_groups"] = _part(lambda: machine.control_groups(procfs, sysfs))
    facts["files"] = _part(_files)
    facts["extras"] = _part(_extras)
    began = time.monotonic()
    facts["gpu"] = _part(lambda: _gpu(name), _GPU_PATIENCE_SECONDS)
    took = time.monotonic() - began
    facts["gpu"]["seconds"] = took
    mlflow.wait(_QUIET_SECONDS - took)
    facts["sampling"] = _part(
        lambda: sample_everything(name, facts, with_gpus=took < _SLOW_DRIVER_SECONDS),
        min(
            _SAMPLING_PATIENCE_SECONDS,
            max(_LEAST_SAMPLING_SECONDS, deadline - time.monotonic()),
        ),
    )
    patience = max(_LEAST_PATIENCE_SECONDS, deadline - time.monotonic())
    facts["mlflow"] = _part(lambda: mlflow_facts(mlflow, patience), patience + _PATIENCE_SECONDS)


# ---- one part at a time -------------------------------------------------------------------------


def _part(look: Callable[[], Facts], patience: float = _PATIENCE_SECONDS) -> Facts:
    """What the function finds, or the problem with it."""
    outcome: SimpleQueue[Facts] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put({"problem": None, **look()})
        except Exception as error:  # noqa: BLE001  # whatever it is, the other parts have their turn
            outcome.put({"problem": _text_of(error)})

    try:
        Thread("smn-doctor", run).start()
        return outcome.get(timeout=patience)
    except Empty:
        return {"problem": f"it did not answer within {patience:g} s"}
    except RuntimeError as error:  # the system gives no further thread
        return {"problem": error_text(error)}


def _text_of(error: Exception) -> str:
    text = error_text(error)
    is_meant_for_users = isinstance(error, (ValueError, OSError))
    return text if is_meant_for_users else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def _without(variables: Iterable[str]) -> Iterator[None]:
    """As if the environment did not have them."""
    taken = {name: os.environ.pop(name) for name in variables if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


def _backend() -> Facts:
    name, reason = chosen_backend()
    sources = known_sources(name)
    return {"name": name, "reason": reason, "sources": list(sources)}


def _gpu(backend: str) -> Facts:
    return gpu_facts(find_gpus(backend))


def _settings() -> Facts:
    return {
        "problem": None,
        "options": [
            one._asdict() | {"problem": one.problem or None} for one in settings.in_force()
        ],
        "unknown_variables": list(settings.unknown_variables()),
        "key_prefix": _key_prefix(),
    }


def _key_prefix() -> str | None:
    """What keys would begin with here: it names the node if a launcher, or a setting, does."""
    try:
        return catalog.metric_prefix(settings.mlflow_node_id(None))
    except ValueError:  # then a setting is wrong, which is told elsewhere
        return None


# ---- files and extras ---------------------------------------------------------------------------


def _files() -> Facts:
    """What waits for `recover`, and whether there is room for more."""
    spool_dir = settings.option("spool_dir")
    folder = private_files.state_folder(spool_dir)
    found = list(leftovers.look_around(spool_dir))
    counts = {
        f"{kind}s": {
            state.replace(" ", "_"): _counted(
                one.size for one in found if (one.kind, one.state) == (kind, state)
            )
            for state in ("waiting", "in use", "done", "unreadable")
        }
        for kind in ("spool", "recording")
    }
    return {
        "folder": folder,
        "spool_folder": spool_folder(spool_dir),
        "recordings_folder": recordings_folder(spool_dir),
        "why_not_writable": _why_not_writable(folder),
        "free_megabytes": psutil.disk_usage(_nearest(folder)).free / 1e6,
        **counts,
    }


def _counted(sizes: Iterable[int]) -> Facts:
    sizes = list(sizes)
    return {"count": len(sizes), "megabytes": sum(sizes) / 1e6}


def _nearest(folder: str) -> str:
    """The folder, or that above it which is there."""
    while not os.path.lexists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return folder


def _why_not_writable(folder: str) -> str | None:
    if not os.path.isabs(folder):
        return "this user has no home folder: set the option spool_dir"
    there = _nearest(folder)
    try:
        for place in (spool_folder(folder), recordings_folder(folder), folder):
            if os.path.lexists(place):
                private_files.check_folder(place)
    except OSError as error:
        return error_text(error)
    if not os.path.isdir(there):
        return f"{there} is no folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"this user may not write to {there}"
    return None


def _extras() -> Facts:
    """The package's extras, and which of their requirements are not installed."""
    metadata = importlib.metadata.metadata(PACKAGE)
    requires = importlib.metadata.requires(PACKAGE) or []
    extras = {}
    for extra in metadata.get_all("Provides-Extra") or []:
        marker = re.compile(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]")
        names = [
            re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0]
            for line in requires
            if marker.search(line)
        ]
        packages = {name: installed_version(name) for name in names}
        extras[extra] = {
            "packages": packages,
            "missing": [name for name, version in packages.items() if version is None],
        }
    return {"extras": extras}


# ---- what it comes to ---------------------------------------------------------------------------


def _problems(facts: Facts) -> Iterator[str]:
    """Why a run would not have what it was meant to have."""
    for one in facts["settings"]["options"]:
        if one["problem"]:
            yield one["problem"]
    if facts["sampling"]["problem"]:
        yield facts["sampling"]["problem"]


def _warnings(facts: Facts) -> Iterator[str]:
    yield from _of_settings(facts["settings"])
    yield from _of_sources(facts["sampling"])
    said = [message.rstrip(".") for message in facts["sampling"].get("messages", [])]
    yield from said
    gpu = facts["gpu"]
    if gpu["problem"] and gpu["problem"] not in [facts["sampling"]["problem"], *said]:
        yield f"GPUs: {gpu['problem']}"
    if gpu["seconds"] >= _SLOW_DRIVER_SECONDS:
        yield f"GPUs were not sampled: after {gpu['seconds']:.0f} s their driver was not waited for"
    yield from _of_mlflow(facts["mlflow"])
    yield from _of_files(facts["files"])
    step = facts["clock"]["wall_clock_step_seconds"]
    if abs(step) > _STEP_SECONDS:
        yield f"the wall clock was set while we looked, by {step:+.3f} s"
    for name in ("backend", "machine", "permissions", "control_groups", "clock", "extras"):
        if facts[name]["problem"]:
            yield f"{name.replace('_', ' ')} could not be looked at: {facts[name]['problem']}"


def _of_settings(found: Facts) -> Iterator[str]:
    options = [f"{settings.ENVIRONMENT_PREFIX}{one['name'].upper()}" for one in found["options"]]
    for name in found["unknown_variables"]:
        near = difflib.get_close_matches(name, options, 1)
        yield f"{name} is no option{f': did you mean {near[0]}?' if near else ''}"


def _of_sources(sampling: Facts) -> Iterator[str]:
    for name, source in sampling.get("sources", {}).items():
        if not source["is_chosen"]:
            continue
        if not source["is_here"]:
            if not (name in _OF_SOME_MACHINES and source["is_default"]):
                yield f"the source {name} is chosen, and not here: {source['reason']}"
        elif not has_value(source):
            failed = f"{source['errors']} of its {source['readings']} readings failed"
            yield f"the source {name} had no value: {failed}"


def _of_mlflow(found: Facts) -> Iterator[str]:
    if found["problem"]:
        yield f"MLflow could not be looked at: {found['problem']}"
    elif found["version"] is not None and not found["is_active"]:
        yield f"runs of MLflow are not monitored by this package: {found['reason']}"


def _of_files(found: Facts) -> Iterator[str]:
    if found["problem"]:
        yield f"the folder of spools and recordings: {found['problem']}"
        return
    if found["why_not_writable"]:
        yield f"undelivered windows have no place to wait: {found['why_not_writable']}"
    counts = {kind: found[kind]["waiting"]["count"] for kind in ("spools", "recordings")}
    waiting = [
        f"{count} {kind if count > 1 else kind[:-1]}" for kind, count in counts.items() if count
    ]
    if waiting:
        verb = "waits" if sum(counts.values()) == 1 else "wait"
        yield f"{' and '.join(waiting)} {verb} to be sent: {PACKAGE} recover"
    for kind in ("spools", "recordings"):
        count = found[kind]["unreadable"]["count"]
        if count:
            yield f"{count} of the {kind} cannot be read: {PACKAGE} recover says why"
