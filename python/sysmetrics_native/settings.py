"""Every setting, validated in one place.

An option is looked up in this order: argument, `configure()`, the environment variable
``SYSMETRICS_NATIVE_<OPTION>``, default. MLflow's own variables keep MLflow's rule: there the
environment beats the constructor's arguments.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from sysmetrics_native import catalog, gpus

ENVIRONMENT_PREFIX = "SYSMETRICS_NATIVE_"

DEBUG = f"{ENVIRONMENT_PREFIX}DEBUG"
"""Not an option: makes the command line show where an unexpected error came from."""

MLFLOW_ENABLE = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
MLFLOW_INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
MLFLOW_SAMPLES = "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING"
MLFLOW_NODE_ID = "MLFLOW_SYSTEM_METRICS_NODE_ID"
MLFLOW_PROCESS = "MLFLOW_SYSTEM_METRICS_INCLUDE_PROCESS"
MLFLOW_PROCESS_CHILDREN = "MLFLOW_SYSTEM_METRICS_INCLUDE_CHILD_PROCESSES"

MIN_INTERVAL_SECONDS = 0.001
MAX_INTERVAL_SECONDS = 3600.0
MAX_SAMPLES_PER_WINDOW = 1_000_000
MAX_SHUTDOWN_TIMEOUT_SECONDS = 3600.0
MAX_DELIVERY_INTERVAL_SECONDS = 3600.0
MAX_RECORDER_MEGABYTES = 65536
MAX_OVERHEAD_BUDGET = 1.0
MAX_PID = 2**22
"""The kernel's largest possible `pid_max` (proc_sys_kernel(5))."""

NETWORK_WORDS = ("physical", "all")
_MAX_INTERFACE_NAME_BYTES = 15

_PROCESS = "process"
"""The source that MLflow's variable of this name turns on."""

_GPU_UUID = re.compile(r"(?:GPU|MIG)-[\w/-]+", re.ASCII)


# ---- values -------------------------------------------------------------------------------------


def _refuse(name: str, allowed: str, value: object) -> ValueError:
    return ValueError(f"{name} must be {allowed}, got {value!r}")


def _number(name: str, value: object, low: float, high: float, unit: str) -> float:
    allowed = f"a number of {unit} from {low:g} to {high:g}"
    if isinstance(value, bool):
        raise _refuse(name, allowed, value)
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever float() takes, text included
    except (TypeError, ValueError, OverflowError):
        raise _refuse(name, allowed, value) from None
    if not low <= number <= high:  # false for NaN, too
        raise _refuse(name, allowed, value)
    return number


def parse_interval(name: str, value: object) -> float:
    """Seconds between two ticks."""
    return _number(name, value, MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS, "seconds")


def parse_samples(name: str, value: object) -> int:
    """Ticks that make one window."""
    allowed = f"a whole number from 1 to {MAX_SAMPLES_PER_WINDOW}"
    if isinstance(value, bool):
        raise _refuse(name, allowed, value)
    try:
        number = int(value)  # type: ignore[call-overload]  # whatever int() takes, text included
        exact = isinstance(value, str) or number == value
    except (TypeError, ValueError, OverflowError):
        raise _refuse(name, allowed, value) from None
    if not exact or not 1 <= number <= MAX_SAMPLES_PER_WINDOW:
        raise _refuse(name, allowed, value)
    return int(number)


def _parse_bool(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    texts = {"true": True, "1": True, "false": False, "0": False}
    try:
        return texts[str(value).strip().lower()]
    except KeyError:
        raise _refuse(name, "true or false", value) from None


def _parse_backend(name: str, value: object) -> str:
    if value not in ("auto", "native", "psutil"):
        raise _refuse(name, "one of auto, native, psutil", value)
    return str(value)


def _parse_names(name: str, value: object) -> tuple[str, ...]:
    """A list of names, or text with commas between them."""
    allowed = "a list of names, or text with commas between them"
    if isinstance(value, str):
        names = [part.strip() for part in value.split(",")]
    elif isinstance(value, Iterable):
        names = list(value)
    else:
        raise _refuse(name, allowed, value)
    if not names or not all(isinstance(part, str) and part for part in names):
        raise _refuse(name, allowed, value)
    return tuple(dict.fromkeys(names))


def _parse_statistics(name: str, value: object) -> tuple[str, ...]:
    statistics = _parse_names(name, value)
    for statistic in statistics:
        if statistic not in catalog.STATISTICS:
            raise _refuse(name, f"any of {', '.join(catalog.STATISTICS)}", statistic)
    return statistics


def _parse_disk_paths(name: str, value: object) -> tuple[str, ...]:
    paths = _parse_names(name, value)
    owners: dict[str, str] = {}
    for path in paths:
        # Not looked up here: to stat a dead network mount can hang for ever.
        if not os.path.isabs(path) or "\n" in path or "\0" in path:
            raise _refuse(name, "absolute paths of mount points", path)
    paths = tuple(dict.fromkeys(os.path.normpath(path) for path in paths))
    for path in paths[1:]:
        suffix = catalog.disk_key_suffix(path)
        if len(suffix) > catalog.MAX_DISK_SUFFIX_LENGTH:
            allowed = (
                f"paths that make keys which MLflow takes: at most "
                f"{catalog.MAX_DISK_SUFFIX_LENGTH} bytes after the first path"
            )
            raise _refuse(name, allowed, path)
        if suffix in owners:
            allowed = f"paths that differ in more than punctuation ({owners[suffix]!r} is there)"
            raise _refuse(name, allowed, path)
        owners[suffix] = path
    return paths


def _parse_network_interfaces(name: str, value: object) -> tuple[str, ...]:
    """A word, or names as the kernel takes them; whether they are there may change at any time."""
    interfaces = _parse_names(name, value)
    allowed = "physical, all, or names of network interfaces"
    if len(interfaces) > 1 and not set(interfaces).isdisjoint(NETWORK_WORDS):
        raise _refuse(name, f"{allowed} without these words", value)
    for interface in interfaces:
        is_name = len(os.fsencode(interface)) <= _MAX_INTERFACE_NAME_BYTES and not re.search(
            r"[\s/\0]", interface
        )
        if not is_name or interface in (".", ".."):
            raise _refuse(name, allowed, interface)
    return interfaces


def _parse_gpus(name: str, value: object) -> gpus.Choice:
    """Which GPUs; whether they are there is known only when they are looked for."""
    allowed = (
        f"{', '.join(gpus.WORDS)}, or a list of indices from 0 to {gpus.MAX_INDEX} and of UUIDs "
        "(GPU-…, MIG-…), or text with commas between them"
    )
    if isinstance(value, str) and value in gpus.WORDS:
        return value
    if isinstance(value, str):
        entries: list[object] = [part.strip() for part in value.split(",")]
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        entries = list(value)
    else:
        entries = [value]
    try:
        parsed = [_parse_gpu(entry) for entry in entries]
    except (TypeError, ValueError):
        raise _refuse(name, allowed, value) from None
    if not parsed:
        raise _refuse(name, allowed, value)
    return tuple(dict.fromkeys(parsed))


def _parse_gpu(entry: object) -> int | str:
    """An index or a UUID; a `ValueError` or `TypeError` where it is none."""
    if isinstance(entry, str):
        if _GPU_UUID.fullmatch(entry):
            return entry
        index = int(entry) if entry.isascii() and entry.isdecimal() else -1
    else:
        index = -1 if isinstance(entry, bool) else operator.index(entry)  # type: ignore[arg-type]  # or TypeError
    if not 0 <= index <= gpus.MAX_INDEX:
        raise ValueError(entry)
    return index


def _parse_directory(name: str, value: object) -> str:
    try:
        path = os.fspath(value)  # type: ignore[call-overload]  # refused below if it is no path
    except TypeError:
        path = None
    if not isinstance(path, str) or not os.path.isdir(path):
        raise _refuse(name, "a directory that exists", value)
    return path


def _parse_timeout(name: str, value: object) -> float:
    return _number(name, value, 0.0, MAX_SHUTDOWN_TIMEOUT_SECONDS, "seconds")


def _parse_delivery_interval(name: str, value: object) -> float:
    return _number(name, value, 0.0, MAX_DELIVERY_INTERVAL_SECONDS, "seconds")


def _parse_path(name: str, value: object) -> str:
    """A path that need not be there yet, as an absolute one."""
    try:
        path = os.fspath(value)  # type: ignore[call-overload]  # refused below if it is no path
    except TypeError:
        path = None
    if not isinstance(path, str) or not path or "\0" in path:
        raise _refuse(name, "a path", value)
    return os.path.abspath(os.path.expanduser(path))


def _parse_recorder(name: str, value: object) -> bool | str:
    """Whether to record, or where to."""
    try:
        return _parse_bool(name, {"on": "true", "off": "false"}.get(str(value).lower(), value))
    except ValueError:
        pass
    try:
        return _parse_path(name, value)
    except ValueError:
        raise _refuse(name, "off, on, or a path", value) from None


def _parse_overhead_budget(name: str, value: object) -> float:
    allowed = f"a share of one core, above 0 and up to {MAX_OVERHEAD_BUDGET:g}"
    try:
        budget = _number(name, value, 0.0, MAX_OVERHEAD_BUDGET, "cores")
    except ValueError:
        raise _refuse(name, allowed, value) from None
    if budget == 0.0:
        raise _refuse(name, allowed, value)
    return budget


def parse_pid(name: str, value: object) -> int:
    """A process that is there; 0 for the one that asks."""
    allowed = f"the number of a process, from 0 (this one) to {MAX_PID}"
    if isinstance(value, bool):
        raise _refuse(name, allowed, value)
    try:
        pid = operator.index(value)  # type: ignore[arg-type]  # refused below if it is no number
    except TypeError:
        raise _refuse(name, allowed, value) from None
    if not 0 <= pid <= MAX_PID:
        raise _refuse(name, allowed, value)
    return pid


def _parse_megabytes(name: str, value: object) -> float:
    return _number(name, value, 0.1, MAX_RECORDER_MEGABYTES, "megabytes")


def _parse_node_id(name: str, value: object) -> str:
    node_id = catalog.clean_node_id(str(value))
    if not node_id:
        raise _refuse(name, "text with at least one letter or digit", value)
    return node_id


# ---- options ------------------------------------------------------------------------------------


class _Option(NamedTuple):
    parse: Callable[[str, object], Any]
    default: Any


_OPTIONS: Mapping[str, _Option] = {
    "enabled": _Option(_parse_bool, True),
    "backend": _Option(_parse_backend, "auto"),
    "sources": _Option(_parse_names, ("default",)),
    "statistics": _Option(_parse_statistics, ("mean",)),
    "disk_paths": _Option(_parse_disk_paths, (os.sep,)),
    "network_interfaces": _Option(_parse_network_interfaces, ("physical",)),
    "gpus": _Option(_parse_gpus, gpus.ALL),
    "procfs_path": _Option(_parse_directory, "/proc"),
    "sysfs_path": _Option(_parse_directory, "/sys"),
    "overhead_budget": _Option(_parse_overhead_budget, 0.05),
    "recorder": _Option(_parse_recorder, False),
    "recorder_megabytes": _Option(_parse_megabytes, 64.0),
    "spool_dir": _Option(_parse_path, None),
    "delivery_interval": _Option(_parse_delivery_interval, 5.0),
    "shutdown_timeout": _Option(_parse_timeout, 10.0),
    "node_id": _Option(_parse_node_id, None),
}

_configured: dict[str, Any] = {}


def configure(**options: Any) -> None:
    """Set options for this process; ``None`` goes back to the environment or the default.

    Args:
        **options: ``enabled``, ``backend`` (auto, native, psutil), ``sources``, ``statistics``
            (any of mean, min, max, p50, p95, p99, last), ``disk_paths``, ``network_interfaces``
            (physical, all, or names), ``gpus`` (all, visible, none, or indices and UUIDs),
            ``procfs_path``, ``sysfs_path``, ``overhead_budget`` (share of one core, above 0 and up
            to 1), ``recorder`` (off, on, or a path), ``recorder_megabytes`` (0.1 to 65536),
            ``spool_dir``, ``delivery_interval`` and ``shutdown_timeout`` (seconds, 0 to 3600),
            ``node_id``.

    Raises:
        ValueError: an unknown option, or a value that is not allowed; nothing is set then.
    """
    parsed = {}
    for name, value in options.items():
        if name not in _OPTIONS:
            raise ValueError(
                f"configure() has no option {name!r}; there are {', '.join(sorted(_OPTIONS))}"
            )
        parsed[name] = None if value is None else _OPTIONS[name].parse(name, value)
    for name, value in parsed.items():
        if value is None:
            _configured.pop(name, None)
        else:
            _configured[name] = value


def reset() -> None:
    """Forget everything that `configure()` was told."""
    _configured.clear()


def option(name: str, argument: object = None) -> Any:
    """The value of an option that is in force.

    Raises:
        ValueError: the argument, or the environment variable, is not allowed.
    """
    parse, default = _OPTIONS[name]
    if argument is not None:
        return parse(name, argument)
    if name in _configured:
        return _configured[name]
    variable = _variable(name)
    text = os.environ.get(variable)
    if text is not None:
        return parse(variable, text)
    return default


def spelling(name: str, argument: object = None) -> str:
    """What users know an option by that is in force: its name, or the variable that set it."""
    is_named = argument is not None or name in _configured or _variable(name) not in os.environ
    return name if is_named else _variable(name)


def is_set(name: str) -> bool:
    """Whether somebody has set an option: its default is not in force."""
    return name in _configured or _variable(name) in os.environ


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


class Setting(NamedTuple):
    """One option, or one of MLflow's switches, as it is now."""

    name: str
    """Of the option; of a switch of MLflow's the variable."""
    value: Any
    """What is in force; `None` where nothing is, or where it is not allowed."""
    origin: str
    """``default``, ``configure()``, or the environment variable that says it."""
    problem: str
    """Why the value is not allowed; empty if it is."""


def in_force() -> tuple[Setting, ...]:
    """Every option and every switch of MLflow's that matters here. What is wrong is in them."""
    return (
        *(_in_force(name) for name in _OPTIONS),
        *(_mlflow_in_force(variable) for variable in _MLFLOW_SWITCHES),
    )


def _in_force(name: str) -> Setting:
    origin = "default"
    if name in _configured:
        origin = "configure()"
    elif _variable(name) in os.environ:
        origin = _variable(name)
    try:
        return Setting(name, option(name), origin, "")
    except ValueError as error:
        return Setting(name, None, origin, str(error))


def unknown_variables() -> tuple[str, ...]:
    """Variables of the environment that look like options and are none."""
    known = {*map(_variable, _OPTIONS), DEBUG}
    return tuple(
        name
        for name in sorted(os.environ)
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known
    )


def resolve_sources(
    names: Iterable[str], known: Mapping[str, bool], option_name: str = "sources"
) -> tuple[str, ...]:
    """The sources that a list of names selects, in the order of `known`.

    Args:
        names: source names, ``default``, ``all``, and ``-name`` to drop one; drops alone are
            taken from the default.
        known: every source that the backend has, and whether it is part of ``default``.
        option_name: what users set them with, for the message.

    Raises:
        ValueError: an unknown name, or nothing left.
    """
    names = list(names)
    chosen: set[str] = set()
    if all(name.startswith("-") for name in names):
        names.insert(0, "default")
    for name in names:
        bare = name.removeprefix("-")
        if bare in ("default", "all"):
            group = {source for source, on in known.items() if on or bare == "all"}
        elif bare in known:
            group = {bare}
        else:
            raise _refuse(option_name, f"any of default, all, {', '.join(known)}", name)
        chosen = chosen - group if name.startswith("-") else chosen | group
    if not chosen:
        raise _refuse(option_name, "names that leave at least one source", ",".join(names))
    return tuple(source for source in known if source in chosen)


# ---- MLflow's own switches ----------------------------------------------------------------------


_MLFLOW_SWITCHES: Mapping[str, _Option] = {
    MLFLOW_ENABLE: _Option(_parse_bool, False),
    MLFLOW_INTERVAL: _Option(parse_interval, 10.0),
    MLFLOW_SAMPLES: _Option(parse_samples, 1),
    MLFLOW_NODE_ID: _Option(_parse_node_id, None),
    MLFLOW_PROCESS: _Option(_parse_bool, False),
    MLFLOW_PROCESS_CHILDREN: _Option(_parse_bool, True),
}
"""With MLflow's own defaults."""


def _mlflow_in_force(variable: str) -> Setting:
    parse, default = _MLFLOW_SWITCHES[variable]
    text = os.environ.get(variable)
    if text is None or (variable == MLFLOW_NODE_ID and not text):
        return Setting(variable, default, "default", "")
    try:
        return Setting(variable, parse(variable, text), variable, "")
    except ValueError as error:
        return Setting(variable, None, variable, str(error))


def mlflow_interval(argument: object) -> float:
    """The sampling interval as MLflow decides it: its variable beats the argument."""
    text = os.environ.get(MLFLOW_INTERVAL)
    if text is not None:
        return parse_interval(MLFLOW_INTERVAL, text)
    return parse_interval("sampling_interval", argument)


def mlflow_samples(argument: object) -> int:
    """The samples of a window as MLflow decides it: its variable beats the argument."""
    text = os.environ.get(MLFLOW_SAMPLES)
    if text is not None:
        return parse_samples(MLFLOW_SAMPLES, text)
    return parse_samples("samples_before_logging", argument)


def mlflow_node_id(argument: str | None) -> str | None:
    """The node id: MLflow's variable, the argument, the option `node_id`, what `nodes` finds."""
    text = os.environ.get(MLFLOW_NODE_ID)
    if text:
        return _parse_node_id(MLFLOW_NODE_ID, text)
    value: str | None = option("node_id", argument or None)
    return value if value is not None else _node_of_job()


def _node_of_job() -> str | None:
    """Which node of a job of several this is, so that it is a part of keys."""
    from sysmetrics_native import nodes  # not above: every `import mlflow` would pay for it

    found = nodes.node_id(os.environ, _host_name)
    # Whatever a launcher has put there is no reason to fail; of a host's name something is left.
    return None if found is None else catalog.clean_node_id(found) or _host_name()


def _host_name() -> str:
    import socket  # it is loaded by everybody who talks to a server, and by nobody else

    return catalog.clean_node_id(socket.gethostname()) or "host"


def _mlflow_bool(variable: str, default: bool) -> bool:
    text = os.environ.get(variable)
    return default if text is None else _parse_bool(variable, text)


def mlflow_process_children() -> bool:
    """Whether the source `process` counts descendants, too: MLflow's variable decides."""
    return _mlflow_bool(MLFLOW_PROCESS_CHILDREN, default=True)


def chosen_sources() -> tuple[str, ...]:
    """The option `sources`, and what MLflow's variable adds to it.

    That is `process`, whatever else is chosen, unless it is dropped by name.
    """
    names: tuple[str, ...] = option("sources")
    if f"-{_PROCESS}" in names or not _mlflow_bool(MLFLOW_PROCESS, default=False):
        return names
    if all(name.startswith("-") for name in names):  # these are drops from the default
        names = ("default", *names)
    return (*names, _PROCESS)


def enable_process_metrics(include_children: bool = True) -> None:
    """Log what the process of the run uses, in every run that logs system metrics.

    Sets MLflow's variables ``MLFLOW_SYSTEM_METRICS_INCLUDE_PROCESS`` and
    ``MLFLOW_SYSTEM_METRICS_INCLUDE_CHILD_PROCESSES``, as its function of this name does.

    Args:
        include_children: whether its descendants are counted, too.

    Raises:
        ValueError: `include_children` is neither true nor false.
    """
    include_children = _parse_bool("include_children", include_children)
    os.environ[MLFLOW_PROCESS] = "true"
    os.environ[MLFLOW_PROCESS_CHILDREN] = "true" if include_children else "false"


def disable_process_metrics() -> None:
    """Log it only where the option `sources` has ``process``, as unless enabled."""
    os.environ[MLFLOW_PROCESS] = "false"


def enable_system_metrics_logging() -> None:
    """Log system metrics of every run, as `mlflow.enable_system_metrics_logging` does."""
    os.environ[MLFLOW_ENABLE] = "true"


def disable_system_metrics_logging() -> None:
    """Log system metrics only of runs that ask for it, as MLflow's function of this name does."""
    os.environ[MLFLOW_ENABLE] = "false"


def _set_variable(variable: str, value: object | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = str(value)


def set_system_metrics_sampling_interval(interval: float | None) -> None:
    """Set the seconds between two samples (0.001 to 3600; 10 unless set); ``None`` unsets.

    Raises:
        ValueError: not such a number.
    """
    if interval is not None:
        interval = parse_interval("interval", interval)
    _set_variable(MLFLOW_INTERVAL, interval)


def set_system_metrics_samples_before_logging(samples: int | None) -> None:
    """Set how many samples make one logged window (1 unless set); ``None`` unsets.

    Raises:
        ValueError: not a whole number from 1 to 1,000,000.
    """
    if samples is not None:
        samples = parse_samples("samples", samples)
    _set_variable(MLFLOW_SAMPLES, samples)


def set_system_metrics_node_id(node_id: str | None) -> None:
    """Set the part of the keys that tells this node from others; ``None`` unsets.

    Raises:
        ValueError: nothing is left of it once what MLflow refuses in keys is taken out.
    """
    if node_id is not None:
        _parse_node_id("node_id", node_id)
    _set_variable(MLFLOW_NODE_ID, node_id)
