"""One window of everything: which sources are here, what they cost, and a value of each series."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sysmetrics_native import catalog, settings
from sysmetrics_native.describe import known_sources
from sysmetrics_native.sampler import Sampler
from sysmetrics_native.window import SeriesInfo, Window

TICK_SECONDS = 0.05
TICKS = 20
"""Of the window: one second."""

_WINDOW_PATIENCE_SECONDS = 3.0
_RATES = {"at_1_hz": 1.0, "at_100_hz": 100.0}

Facts = dict[str, Any]


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


def sample_everything(backend: str, facts: Facts, *, with_gpus: bool) -> Facts:
    """Sample a window of one second of everything that there is, with the settings in force.

    Args:
        backend: its name.
        facts: what `checkup` knows of permissions and GPUs, to tell why something is not there.
        with_gpus: whether to look for GPUs, which may take as long as their driver likes.

    Returns:
        The entry ``sampling`` of `checkup.check`.
    """
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
        source["missing_series"] = _missing(name, sampler.schema) if source["is_here"] else []
        if not source["is_here"]:
            source["reason"] = _why_absent(name, facts, with_gpus=with_gpus)
    if window is None:
        problems.append(f"no window came within {_WINDOW_PATIENCE_SECONDS:g} s")
    elif not any(has_value(source) for source in sources.values() if source["is_chosen"]):
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


def _missing(source: str, schema: Iterable[SeriesInfo]) -> list[str]:
    """The keys that a source knows, as patterns, and that it does not have here."""
    here = [info for info in schema if info.source == source]
    known: dict[str, bool] = {}
    for one in _documented():
        if one.info.source == source:
            is_here = any(one.describes(info) for info in here)
            known[one.info.key] = known.get(one.info.key, False) or is_here
    return [key for key, is_here in known.items() if not is_here]


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


def has_value(source: Mapping[str, Any]) -> bool:
    """Whether any of its series had one."""
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
