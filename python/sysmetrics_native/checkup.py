"""`check`: whether sampling works here, and all that is known of why: what `doctor` shows.

Each part is looked at by itself, on a thread, and for so long only: one that fails, or that a
driver or a dead mount holds up, says so and leaves the others alone.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any

import psutil

from sysmetrics_native import catalog, leftovers, machine, private_files, settings
from sysmetrics_native.describe import chosen_backend, find_gpus, gpu_facts, known_sources
from sysmetrics_native.plugin import OLDEST_MLFLOW
from sysmetrics_native.recorder import recordings_folder
from sysmetrics_native.redaction import error_text, without_secrets
from sysmetrics_native.sampler import Sampler
from sysmetrics_native.spool import spool_folder
from sysmetrics_native.threads import Thread
from sysmetrics_native.window import Window

PACKAGE = "sysmetrics-native"

TICK_SECONDS = 0.05
TICKS = 20
"""Of the window that is sampled to see whether it works: one second."""

_PATIENCE_SECONDS = 2.0
_LEAST_PATIENCE_SECONDS = 0.2
_GPU_PATIENCE_SECONDS = 10.5
"""Drivers are waited for 10 s, by whoever asks them."""
_SAMPLING_PATIENCE_SECONDS = 5.0
_WINDOW_PATIENCE_SECONDS = 3.0
_LONGEST_SECONDS = 14.0
"""Of all of it, however much of it hangs."""
_QUIET_SECONDS = 4.0
"""How long sampling waits for MLflow's import, which would be most of what it sees, to be over."""
_SLOW_DRIVER_SECONDS = 4.0
"""A driver that needs longer to say what there is is not waited for a second time."""

_RATES = {"at_1_hz": 1.0, "at_100_hz": 100.0}
_STEP_SECONDS = 0.1
"""What the wall clock may differ by without having been set."""
_OF_SOME_MACHINES = {"container", "gpu"}
"""In `default`, though only some machines have them."""

_FROM_CHILD = "sysmetrics-native:"

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
    with _Import() as mlflow, _without(wrong):
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


def _look_around(facts: Facts, mlflow: _Import, deadline: float) -> None:
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
    mlflow.wait(_QUIET_SECONDS - took)
    facts["sampling"] = _part(
        lambda: _sampling(name, facts, with_gpus=took < _SLOW_DRIVER_SECONDS),
        min(_SAMPLING_PATIENCE_SECONDS, deadline - time.monotonic()),
    )
    patience = max(_LEAST_PATIENCE_SECONDS, deadline - time.monotonic())
    facts["mlflow"] = _part(lambda: _mlflow(mlflow, patience), patience + _PATIENCE_SECONDS)


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
        "options": [one._asdict() | {"problem": one.problem or None} for one in settings.in_force()],
        "unknown_variables": list(settings.unknown_variables()),
    }


# ---- sampling -----------------------------------------------------------------------------------


class _Log(logging.Handler):
    """Keeps what the package has to say."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    logger = logging.getLogger("sysmetrics_native")
    log = _Log()
    propagates = logger.propagate
    logger.addHandler(log)
    logger.propagate = False
    try:
        yield log.lines
    finally:
        logger.propagate = propagates
        logger.removeHandler(log)


def _sampling(backend: str, facts: Facts, *, with_gpus: bool) -> Facts:
    """A window of one second of everything that there is."""
    known = known_sources(backend)
    problems = []
    try:
        chosen = settings.resolve_sources(
            settings.chosen_sources(), known, settings.spelling("sources")
        )
    except ValueError as error:
        problems.append(str(error))
        chosen = settings.resolve_sources(("default",), known)
    with _listening() as messages:
        try:
            sampler = _sampler(None if with_gpus else "none")
        except ValueError as error:  # it may be about GPUs that the option names in vain
            problems.append(str(error))
            try:
                sampler = _sampler("none")
            except ValueError:
                return {"problem": problems[0], "messages": messages}
        with sampler:
            window = sampler.next_window(_WINDOW_PATIENCE_SECONDS)
            stats = sampler.stats()
            sampler.stop(_WINDOW_PATIENCE_SECONDS)
    sources = {
        name: _source(
            name, is_default, name in chosen, _read(sampler, window, name), stats["sources"]
        )
        for name, is_default in known.items()
    }
    for name, source in sources.items():
        if not source["is_here"]:
            source["reason"] = _why_absent(name, facts, with_gpus=with_gpus)
    if window is None:
        problems.append(f"no window came within {_WINDOW_PATIENCE_SECONDS:g} s")
    elif not any(_has_value(source) for source in sources.values() if source["is_chosen"]):
        problems.append("a window came, but no source that is chosen had a value")
    return {
        "problem": problems[0] if problems else None,
        "ticks": stats["ticks"],
        "missed": stats["missed"],
        "seconds": None if window is None else window.end - window.start,
        "sources": sources,
        "governor": _governor(backend, sources),
        "messages": messages,
    }


def _sampler(gpus: str | None) -> Sampler:
    return Sampler(
        TICK_SECONDS, TICKS, sources="all", gpus=gpus, recorder=False, overhead_budget=1.0
    )


def _read(sampler: Sampler, window: Window | None, source: str) -> list[Facts]:
    """The series that a source has here, each with its value in the window."""
    meanings = _documented()
    read = []
    for info in sampler.schema:
        if info.source != source:
            continue
        value = None
        if window is not None:
            series = window[info.key]
            value = series.last if info.kind == "total" else series.mean
        meaning = next((one.meaning for one in meanings if one.describes(info)), None)
        read.append(
            {
                "key": info.key,
                "unit": info.unit,
                "kind": info.kind,
                "value": value,
                "meaning": meaning,
            }
        )
    return read


def _documented() -> tuple[catalog.DocumentedSeries, ...]:
    try:
        return catalog.documented_series()
    except ImportError:  # no C core, which has the texts
        return ()


def _source(
    name: str, is_default: bool, is_chosen: bool, series: list[Facts], stats: Mapping[str, Any]
) -> Facts:
    here = stats.get(name)
    facts: Facts = {
        "is_here": here is not None,
        "is_default": is_default,
        "is_chosen": is_chosen,
        "reason": None,
        "readings": None,
        "errors": None,
        "mean_cost_seconds": None,
        "max_cost_seconds": None,
        "interval_seconds": None,
        "series": series,
    }
    if here is not None:
        facts |= {
            "readings": here["calls"],
            "errors": here["errors"],
            "mean_cost_seconds": here["mean_cost_seconds"] if here["calls"] else None,
            "max_cost_seconds": here["max_cost_seconds"] if here["calls"] else None,
            "interval_seconds": here["usual_interval_seconds"],
        }
    return facts


def _has_value(source: Mapping[str, Any]) -> bool:
    return any(series["value"] is not None for series in source["series"])


def _why_absent(name: str, facts: Facts, *, with_gpus: bool) -> str:
    """In words; the C core only knows that there is nothing."""
    if name.startswith("gpu"):
        if not with_gpus:
            return "not tried: the GPU driver is too slow to answer"
        if settings.option("gpus") == "none":
            return "the option gpus is none"
        return "no GPU has any of it" if facts["gpu"].get("devices") else "no GPU is here"
    permissions = facts["permissions"]
    if name == "energy" and permissions.get("rapl") == "forbidden":
        return "this user may not read the energy counters, and there are no thermometers"
    known = {
        "container": "nothing limits the control group of this process",
        "energy": "neither energy counters (RAPL) nor thermometers",
        "pressure": "the kernel has no /proc/pressure (psi=1 at its command line adds it)",
        "rdma": "no InfiniBand or RoCE device",
    }
    if name in known:
        return known[name]
    reads = dict.fromkeys(one.reads for one in _documented() if one.info.source == name)
    return f"nothing of what it reads is here ({'; '.join(reads)})" if reads else "not here"


def _governor(backend: str, sources: Mapping[str, Facts]) -> Facts:
    """What sampling would take of a core, as measured."""
    budget: float = settings.option("overhead_budget")
    least = _shortest_intervals(backend)
    shares: Facts = {}
    for whose in ("chosen", "all"):
        shares[whose] = {
            rate: sum(
                _share(source, least.get(name), hertz)
                for name, source in sources.items()
                if whose == "all" or source["is_chosen"]
            )
            for rate, hertz in _RATES.items()
        }
    worst = shares["chosen"]["at_100_hz"]
    verdict = f"the sources that are read stay inside the budget of {budget:.0%} of a core"
    if shares["chosen"]["at_1_hz"] > budget:
        verdict = f"even at 1 Hz the budget of {budget:.0%} of a core slows some sources down"
    elif worst > budget:
        verdict = f"at 100 Hz the budget of {budget:.0%} of a core slows some sources down"
    return {"budget": budget, "shares_of_a_core": shares, "verdict": verdict}


def _share(source: Mapping[str, Any], least: float | None, hertz: float) -> float:
    """Of one core, for one source at a rate of ticks."""
    cost, interval = source["mean_cost_seconds"], source["interval_seconds"]
    if cost is None or interval is None:
        return 0.0
    if least is None:  # a source in Python: what it had at our ticks is its own unless it is they
        least = interval if interval > TICK_SECONDS else 0.0
    return float(cost / max(least, 1.0 / hertz))


def _shortest_intervals(backend: str) -> Mapping[str, float]:
    if backend != "native":
        return {}
    from sysmetrics_native.backends import native

    return native.shortest_intervals()


# ---- MLflow -------------------------------------------------------------------------------------

_PROGRAM = f"""
import sys
sys.path[:] = [path for path in sys.path if path]
import json, logging
logging.basicConfig(format="{_FROM_CHILD}%(message)s", level=logging.ERROR)
handler = logging.StreamHandler()
handler.setFormatter(logging.Formatter("{_FROM_CHILD}%(message)s"))
logger = logging.getLogger("sysmetrics_native")
logger.addHandler(handler)
logger.propagate = False
import mlflow
from sysmetrics_native import is_installed
print(json.dumps([is_installed(), mlflow.get_tracking_uri()]))
"""


class _Import:
    """MLflow, imported by a fresh interpreter, as a program of the user's would; meanwhile we go on.

    It costs a second or more, may hang, and changes the process that does it. No server is asked.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._why_not = ""

    def __enter__(self) -> _Import:  # noqa: PYI034  # typing.Self came with Python 3.11
        try:
            if importlib.util.find_spec("mlflow") is None:
                return self
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
            )
        except Exception as error:  # noqa: BLE001  # some systems start no process
            self._why_not = _text_of(error)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()

    def wait(self, patience: float) -> None:
        """Wait for its end, for so many seconds at most."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, patience))

    def outcome(self, patience: float) -> tuple[bool | None, str | None, str]:
        """Whether a run would be monitored by us, the tracking URI, and why it would not."""
        if self._process is None:
            return None, None, self._why_not
        try:
            output, errors = self._process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            return None, None, f"importing MLflow took too long"
        said = [line.removeprefix(_FROM_CHILD) for line in errors.splitlines()]
        try:
            is_active, tracking_uri = json.loads(output.splitlines()[-1])
        except (IndexError, ValueError):
            last = said[-1] if said else f"status {self._process.returncode}"
            return None, None, f"MLflow cannot be imported: {without_secrets(last)}"
        ours = [line for line in errors.splitlines() if line.startswith(_FROM_CHILD)]
        reason = without_secrets(ours[-1].removeprefix(_FROM_CHILD)) if ours else ""
        return bool(is_active), without_secrets(str(tracking_uri)), reason


def _mlflow(imported: _Import, patience: float) -> Facts:
    version = _installed("mlflow") or _installed("mlflow-skinny")
    entry_points = importlib.metadata.entry_points(
        group="mlflow.run_context_provider", name="sysmetrics_native"
    )
    facts: Facts = {
        "version": version,
        "is_new_enough": None,
        "has_entry_point": bool(tuple(entry_points)),
        "is_active": None,
        "tracking_uri": None,
        "reason": "",
    }
    if version is None:
        return facts | {"reason": "MLflow is not installed: pip install 'mlflow>=2.9'"}
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    facts["is_new_enough"] = numbers >= OLDEST_MLFLOW
    is_active, tracking_uri, reason = imported.outcome(patience)
    if is_active is False and not reason:
        reason = "the option enabled is false"
    if not facts["has_entry_point"]:
        reason = "MLflow is not told of it: install the package anew, with pip"
    return facts | {"is_active": is_active, "tracking_uri": tracking_uri, "reason": reason}


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
        packages = {name: _installed(name) for name in names}
        extras[extra] = {
            "packages": packages,
            "missing": [name for name, version in packages.items() if version is None],
        }
    return {"extras": extras}


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


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
    yield from facts["sampling"].get("messages", [])
    gpu = facts["gpu"]
    if gpu["problem"] and gpu["problem"] != facts["sampling"]["problem"]:
        yield f"GPUs: {gpu['problem']}"
    yield from _of_mlflow(facts["mlflow"])
    yield from _of_files(facts["files"])
    step = facts["clock"]["wall_clock_step_seconds"]
    if abs(step) > _STEP_SECONDS:
        yield f"the wall clock was set while we looked, by {step:+.3f} s"
    for name in ("backend", "machine", "permissions", "control_groups", "clock", "extras"):
        if facts[name]["problem"]:
            yield f"{name.replace('_', ' ')} could not be looked at: {facts[name]['problem']}"


def _of_settings(found: Facts) -> Iterator[str]:
    options = [
        f"{settings.ENVIRONMENT_PREFIX}{one['name'].upper()}" for one in found["options"]
    ]
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
        elif not _has_value(source):
            yield f"the source {name} had no value: {source['errors']} of its readings failed"


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
    waiting = [
        f"{found[kind]['waiting']['count']} {kind if found[kind]['waiting']['count'] > 1 else kind[:-1]}"
        for kind in ("spools", "recordings")
        if found[kind]["waiting"]["count"]
    ]
    if waiting:
        yield f"{' and '.join(waiting)} wait to be sent: {PACKAGE} recover"
    for kind in ("spools", "recordings"):
        if found[kind]["unreadable"]["count"]:
            yield f"{found[kind]['unreadable']['count']} of the {kind} cannot be read: {PACKAGE} recover says why"
