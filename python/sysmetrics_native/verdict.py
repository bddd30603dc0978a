"""What limited a run: in plain words, with the evidence, and with what could not be judged.

Everything here is computed from a `Timeline` alone. Values are compared with thresholds as means
over stretches of at least a second: a single tick of 10 ms sees a CPU as idle or as busy, never as
half busy. What is absent is not judged, and that is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sysmetrics_native import totals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sysmetrics_native.timeline import Timeline, Track

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

NOTE, HINT, LIMITED, FAILED = range(4)
"""Severities: good to know; worth a look; it held the run up; something was killed."""

MOST_NAMED = 4
"""GPUs whose numbers are told one by one."""

NOTHING = "Nothing limited it that these metrics show."
NO_METRICS = "There are no system metrics to judge."

# ---- thresholds ---------------------------------------------------------------------------------

STRETCH_SECONDS = 1.0
"""Shortest stretch that is judged: a hundred clock ticks of a CPU, so that its share is meant."""
MOST_STRETCHES = 10_000
"""Of a long run: more would tell no more."""
FEWEST_STRETCHES = 5
"""With fewer values a share of time is a guess, and none is given."""

MOST = 0.5
"""The share of time from which on something was so "most of the time"."""
OFTEN = 0.25
"""The share of time that would be worth winning back."""
SOMETIMES = 0.1
"""The share of time below which it is not worth a sentence."""

CPU_BUSY = 90.0
"""Percent: the rest is what schedulers and short waits leave even of a saturated machine."""
CORE_BUSY = 95.0
"""Percent of the busiest core: higher, because of many cores one is at 90 by chance."""
ONE_CORE = (90.0, 110.0)
"""Percent of one core that processes use whose work is that of one thread, and a little more."""
CPU_IDLE = 50.0
"""Percent of all cores below which a busy core means work that does not spread."""
STOLEN = 10.0
"""Percent of CPU time that a hypervisor gave to others; a little is normal on shared hosts."""
THROTTLED_PERIODS = 5.0
"""Mean percent of throttled periods: below, a burst now and then met the quota."""

MEMORY_FULL = 90.0
"""Percent: above, the page cache has hardly room, and one allocation may be the last."""
MEMORY_AT_LIMIT = 97.0
"""Percent at which the kernel reclaims all the time."""
MEMORY_STALLED = 10.0
"""Percent of time in which some task waited for memory; a healthy machine has less than 1."""
SWAPPED_MEGABYTES = 100.0
"""More swap used than at the start: less is what the kernel puts aside from idle processes."""
MAJOR_FAULTS = 100.0
"""A second; each waits for a disk, 100 µs to 10 ms: from here on it is a percent of the time."""

DISK_BUSY = 90.0
"""Percent; alone it proves nothing, for a modern disk does much at once. With waiting it does."""
IO_WAITED = 20.0
"""Percent of time in which tasks waited for a disk: they lost a fifth of it."""
DISK_FULL = 95.0
"""Percent: file systems slow down and checkpoints fail soon after."""

GPU_USED = 5.0
"""Percent that a GPU must have reached to count as used: a driver's own work is less."""
GPU_IDLE = 30.0
"""Mean percent: a GPU that works less than that could be shared, or fed better."""
GPU_BUSY = 90.0
"""Percent of time in which it had work, which is all that the utilization says."""
GPU_MEMORY_FULL = 95.0
"""Percent at which a larger batch will fail."""
GPU_THROTTLED = 10.0
"""Mean percent of readings with slowed clocks; at full power some is by design."""
GPU_HOT = 85.0
"""Degrees Celsius near which current data center GPUs slow their clocks."""

LINK_MEGABYTES = 100.0
"""A second: just below what the slowest link of today's servers, 1 Gbit/s, carries (118)."""
NEAR_CEILING = 0.95
"""Of the highest rate: traffic that stays so close to it meets a limit rather than a demand."""
LOST_PACKETS = 1.0
"""A second, in the mean; TCP slows down at each."""


class Finding(NamedTuple):
    """One thing that was found."""

    kind: str
    """What it is about, such as ``cpu``; the same kind on several nodes is one finding."""
    severity: int
    sentence: str
    evidence: tuple[str, ...]
    share: float
    """Of the judged time in which it was so, 0 to 1; of things that happen once, 0."""
    when: tuple[float, float] | None = None
    """The longest stretch in which it was so, in Unix seconds."""
    node: str | None = None


class Verdict(NamedTuple):
    """What limited a run."""

    headline: str
    findings: tuple[Finding, ...]
    """The most severe first."""
    not_judged: tuple[str, ...]
    """What is missing, and so what nothing is said about."""


def judge(timeline: Timeline) -> Verdict:
    """What limited the run, as far as its metrics tell."""
    nodes = _nodes(timeline)
    if not nodes:
        return Verdict(NO_METRICS, (), ())
    found = [
        finding._replace(node=node.name)
        for node in nodes
        for judge_one in _JUDGES
        for finding in judge_one(node)
    ]
    findings = sorted(_merged(found), key=lambda one: (-one.severity, -one.share))
    if len(nodes) > 1:
        findings = [_with_node(finding) for finding in findings]
    limits = [finding for finding in findings if finding.severity >= LIMITED]
    headline = limits[0].sentence if limits else NOTHING
    return Verdict(headline, tuple(findings), tuple(_not_judged(nodes)))


def _merged(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Of each kind the worst, which names the other nodes."""
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    for same in by_kind.values():
        same.sort(key=lambda one: (-one.severity, -one.share))
        worst, *others = same
        if others:
            names = ", ".join(sorted(f"{other.node or 'without a name'}" for other in others))
            worst = worst._replace(evidence=(*worst.evidence, f"the same on {names}"))
        yield worst


def _with_node(finding: Finding) -> Finding:
    return finding._replace(sentence=f"{finding.node or 'no node'}: {finding.sentence}")


# ---- one node -----------------------------------------------------------------------------------

_OF_GPU = re.compile(r"gpu_(\d+)_(?!mig_)(.+)")


class _Node:
    """The tracks of one node, and each of them as means over equal stretches of time."""

    def __init__(self, timeline: Timeline, name: str | None, tracks: Mapping[str, Track]) -> None:
        self.name = name
        self.tracks = tracks
        self.start = timeline.start
        self.interval = timeline.interval
        length = max(timeline.end - timeline.start, timeline.interval)
        self.width = max(STRETCH_SECONDS, timeline.interval, length / MOST_STRETCHES)
        self._count = max(1, math.ceil(length / self.width - 1e-6))
        self._steady: dict[str, Floats | None] = {}

    def steady(self, key: str) -> Floats | None:
        """Means over the stretches, NaN where there is no value; `None` without any."""
        if key not in self._steady:
            track = self.tracks.get(key)
            self._steady[key] = None if track is None else self.means(track)
        return self._steady[key]

    def means(self, track: Track) -> Floats | None:
        """The same of a track that is not one of the node's."""
        import numpy as np

        known = ~np.isnan(track.values)
        if not known.any():
            return None
        # The value stands for the stretch before its time: its middle says where it belongs.
        middle = track.times[known] - self.interval / 2
        places = ((middle - self.start) / self.width).astype(int).clip(0, self._count - 1)
        counts = np.bincount(places, minlength=self._count)
        sums = np.bincount(places, track.values[known], self._count)
        with np.errstate(invalid="ignore", divide="ignore"):
            means: Floats = sums / counts
        return means

    def peak(self, key: str) -> tuple[float, float] | None:
        """The highest value, within a stretch where that is known, and its time."""
        import numpy as np

        track = self.tracks.get(key)
        if track is None or np.isnan(track.values).all():
            return None
        values = track.values if track.high is None else np.fmax(track.values, track.high)
        place = int(np.nanargmax(values))
        return float(values[place]), float(track.times[place])

    def longest(self, mask: Mask) -> tuple[float, float] | None:
        """The longest row of stretches that are meant, in Unix seconds."""
        import numpy as np

        edges = np.flatnonzero(np.diff(mask.astype(int), prepend=0, append=0))
        begins, ends = edges[::2], edges[1::2]
        if len(begins) == 0:
            return None
        place = int(np.argmax(ends - begins))
        return (
            self.start + float(begins[place]) * self.width,
            self.start + float(ends[place]) * self.width,
        )

    def longest_text(self, mask: Mask) -> str:
        """The same in words."""
        found = self.longest(mask)
        if found is None:
            return ""
        after = f"from {duration(found[0] - self.start)} after the start"
        return f"longest stretch: {duration(found[1] - found[0])}, {after}"

    def gpus(self) -> dict[int, set[str]]:
        """The GPUs by number, and what is known of each."""
        found: dict[int, set[str]] = {}
        for key in self.tracks:
            match = _OF_GPU.fullmatch(key)
            if match is not None:
                found.setdefault(int(match[1]), set()).add(match[2])
        return dict(sorted(found.items()))

    def used_gpus(self) -> dict[int, Floats]:
        """The utilization of those that did something."""
        used = {}
        for number in self.gpus():
            peak = self.peak(f"gpu_{number}_utilization_percentage")
            steady = self.steady(f"gpu_{number}_utilization_percentage")
            if peak is not None and steady is not None and peak[0] >= GPU_USED:
                used[number] = steady
        return used


def _nodes(timeline: Timeline) -> list[_Node]:
    by_name: dict[str | None, dict[str, Track]] = {}
    for track in timeline.tracks:
        if len(track.times):
            by_name.setdefault(track.node, {})[track.key] = track
    return [_Node(timeline, name, tracks) for name, tracks in by_name.items()]


# ---- arithmetic and words -----------------------------------------------------------------------


def _share(mask: Mask, known: Mask) -> float:
    """Of the time of which something is known; 0 where that is too little to say."""
    count = int(known.sum())
    return 0.0 if count < FEWEST_STRETCHES else float((mask & known).sum()) / count


def _known(values: Floats) -> Mask:
    import numpy as np

    mask: Mask = ~np.isnan(values)
    return mask


def _mean(values: Floats) -> float:
    import numpy as np

    return float(np.nanmean(values))


def _is_enough(values: Floats) -> bool:
    return int(_known(values).sum()) >= FEWEST_STRETCHES


def _percent(value: float) -> str:
    """No decimals, but for what would look like nothing at all, or like everything."""
    is_edge = 0 < value < 1 or 99 < value < 100  # noqa: PLR2004  # percent
    return f"{value:.1f} %" if is_edge else f"{value:.0f} %"


def _of_time(share: float) -> str:
    return f"{_percent(100 * share)} of the time"


def _mean_and_max(what: str, values: Floats) -> str:
    import numpy as np

    return f"{what}: mean {_percent(_mean(values))}, highest {_percent(float(np.nanmax(values)))}"


def duration(seconds: float) -> str:
    """A length of time for people, such as ``2 h 5 min``, ``3 min 20 s`` or ``0.8 s``."""
    if seconds < 10:  # noqa: PLR2004  # seconds that deserve a decimal
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    shown = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(shown[:2]) or "0 s"


def _numbers(what: str, numbers: Sequence[int]) -> str:
    """``GPU 3``, ``GPUs 0, 1 and 2``."""
    texts = [str(number) for number in numbers]
    if len(texts) == 1:
        return f"{what} {texts[0]}"
    return f"{what}s {', '.join(texts[:-1])} and {texts[-1]}"


def _each(what: str, gpus: Mapping[int, Floats]) -> Iterator[str]:
    """Numbers of some GPUs, and of the others how many they are."""
    for number, values in list(gpus.items())[:MOST_NAMED]:
        yield _mean_and_max(f"{what} of GPU {number}", values)
    if len(gpus) > MOST_NAMED:
        yield f"and {len(gpus) - MOST_NAMED} more"


def _mean_of(node: _Node, key: str, what: str) -> Iterator[str]:
    values = node.steady(key)
    if values is not None:
        yield _mean_and_max(what, values)


# ---- memory -------------------------------------------------------------------------------------


def _judge_kills(node: _Node) -> Iterator[Finding]:
    track = node.tracks.get("container_oom_kills")
    kills = None if track is None else totals.increase(track)
    if not kills:
        return
    evidence = [f"OOM kills in the container: {kills:.0f}"]
    peak = node.peak("container_memory_usage_percentage")
    if peak is not None:
        evidence.append(f"memory of the container: at most {_percent(peak[0])} of its limit")
    sentence = "Memory ran out: the kernel killed a process of the container."
    yield Finding("oom", FAILED, sentence, tuple(evidence), 0.0)


def _judge_memory(node: _Node) -> Iterator[Finding]:
    for kind, key, whose, limit in (
        ("memory_container", "container_memory_usage_percentage", "container", "its limit"),
        ("memory", "system_memory_usage_percentage", "machine", "what it has"),
    ):
        peak = node.peak(key)
        values = node.steady(key)
        if peak is None or values is None or peak[0] < MEMORY_FULL:
            continue
        mask = values >= MEMORY_FULL
        share = _share(mask, _known(values))
        since = duration(peak[1] - node.start)
        evidence = [
            f"highest {_percent(peak[0])} of {limit}, {since} after the start",
            f"at least {_percent(MEMORY_FULL)} for {_of_time(share)}",
            *_mean_of(node, "pressure_memory_some_percentage", "some task waited for memory"),
        ]
        severity = LIMITED if peak[0] >= MEMORY_AT_LIMIT or share >= MOST else HINT
        sentence = f"The memory of the {whose} was nearly full: {_percent(peak[0])} of {limit}."
        when = node.longest(mask)
        yield Finding(kind, severity, sentence, tuple(evidence), share, when)


def _judge_memory_stalls(node: _Node) -> Iterator[Finding]:
    values = node.steady("pressure_memory_some_percentage")
    if values is None:
        return
    mask = values >= MEMORY_STALLED
    share = _share(mask, _known(values))
    if share < SOMETIMES:
        return
    evidence = [
        _mean_and_max("some task waited for memory", values),
        *_mean_of(node, "pressure_memory_full_percentage", "all tasks waited for memory"),
        node.longest_text(mask),
    ]
    sentence = f"Memory was short: tasks waited for it during {_of_time(share)}."
    yield Finding("memory_stalls", LIMITED, sentence, tuple(evidence), share, node.longest(mask))


def _judge_swap(node: _Node) -> Iterator[Finding]:
    swap = node.steady("swap_usage_megabytes")
    if swap is not None:
        known = swap[_known(swap)]
        grown = float(known.max() - known[0])
        if grown >= SWAPPED_MEGABYTES:
            text = f"swap in use: {known[0]:.0f} MB at the start, at most {known.max():.0f} MB"
            sentence = f"The machine swapped: {grown:.0f} MB more than at the start."
            yield Finding("swap", HINT, sentence, (text,), 0.0)
    faults = node.steady("major_page_faults_per_second")
    if faults is None:
        return
    mask = faults >= MAJOR_FAULTS
    share = _share(mask, _known(faults))
    if share >= SOMETIMES:
        sentence = (
            "Programs waited for pages from disk (major page faults): swapped memory, or files "
            f"that are mapped; for {_of_time(share)}."
        )
        text = f"major page faults: mean {_mean(faults):.0f}/s, highest {_largest(faults):.0f}/s"
        evidence = (text, node.longest_text(mask))
        yield Finding("major_faults", HINT, sentence, evidence, share, node.longest(mask))


def _largest(values: Floats) -> float:
    import numpy as np

    return float(np.nanmax(values))


# ---- CPUs ---------------------------------------------------------------------------------------


def _judge_cpu(node: _Node) -> Iterator[Finding]:
    values = node.steady("cpu_utilization_percentage")
    if values is None:
        return
    mask = values >= CPU_BUSY
    share = _share(mask, _known(values))
    if share < MOST:
        return
    evidence = [
        _mean_and_max("utilization of all cores", values),
        f"at least {_percent(CPU_BUSY)} for {_of_time(share)}; {node.longest_text(mask)}",
        *_mean_of(node, "pressure_cpu_some_percentage", "some task waited for a CPU"),
    ]
    sentence = f"The CPUs were the limit: all of them busy for {_of_time(share)}."
    yield Finding("cpu", LIMITED, sentence, tuple(evidence), share, node.longest(mask))


def _judge_core(node: _Node) -> Iterator[Finding]:
    core = node.steady("cpu_core_max_percentage")
    machine = node.steady("cpu_utilization_percentage")
    if core is None or machine is None:
        return
    mask = (core >= CORE_BUSY) & (machine < CPU_IDLE)
    share = _share(mask, _known(core) & _known(machine))
    if share < MOST:
        return
    evidence = [
        _mean_and_max("busiest core", core),
        _mean_and_max("all cores", machine),
        node.longest_text(mask),
    ]
    process = node.steady("process_cpu_percentage")
    if process is not None:
        evidence.append(f"the run's processes: mean {_percent(_mean(process))} of one core")
    sentence = (
        f"One core was the limit: it was busy for {_of_time(share)} while the others were mostly "
        "idle. Work in a single thread does that, such as loading data without workers."
    )
    yield Finding("core", LIMITED, sentence, tuple(evidence), share, node.longest(mask))


def _judge_one_core(node: _Node) -> Iterator[Finding]:
    """What can be said of the same where single cores are not known: less."""
    process = node.steady("process_cpu_percentage")
    if process is None or "cpu_core_max_percentage" in node.tracks:
        return
    mask = (process >= ONE_CORE[0]) & (process <= ONE_CORE[1])
    share = _share(mask, _known(process))
    if share < MOST:
        return
    evidence = [
        _mean_and_max("the run's processes, of one core", process),
        node.longest_text(mask),
        "the source cpu_detail would tell whether one core was busy",
    ]
    sentence = (
        f"One thread may have been the limit: the run's processes used about one core for "
        f"{_of_time(share)}."
    )
    yield Finding("core", HINT, sentence, tuple(evidence), share, node.longest(mask))


def _judge_quota(node: _Node) -> Iterator[Finding]:
    throttled = node.steady("container_cpu_throttled_percentage")
    used = node.steady("container_cpu_utilization_percentage")
    of_quota = [] if used is None else [_mean_and_max("use of the CPU quota", used)]
    if throttled is not None and _is_enough(throttled):
        mean = _mean(throttled)
        if mean >= THROTTLED_PERIODS:
            mask = throttled >= THROTTLED_PERIODS
            share = _share(mask, _known(throttled))
            evidence = [_mean_and_max("throttled periods", throttled), *of_quota]
            evidence.append(node.longest_text(mask))
            sentence = (
                f"The container's CPU quota held it up: throttled in {_percent(mean)} of periods."
            )
            when = node.longest(mask)
            yield Finding("quota", LIMITED, sentence, tuple(evidence), share, when)
            return
    if used is None:
        return
    mask = used >= CPU_BUSY
    share = _share(mask, _known(used))
    if share >= MOST:
        sentence = f"The container's CPU quota was used up for {_of_time(share)}."
        evidence = [*of_quota, node.longest_text(mask)]
        yield Finding("quota", LIMITED, sentence, tuple(evidence), share, node.longest(mask))


def _judge_steal(node: _Node) -> Iterator[Finding]:
    values = node.steady("cpu_steal_percentage")
    if values is None or not _is_enough(values) or _mean(values) < STOLEN:
        return
    mask = values >= STOLEN
    sentence = f"The hypervisor gave {_percent(_mean(values))} of the CPU time to other machines."
    evidence = (_mean_and_max("stolen CPU time", values), node.longest_text(mask))
    share = _share(mask, _known(values))
    yield Finding("steal", LIMITED, sentence, evidence, share, node.longest(mask))


# ---- input and disks ----------------------------------------------------------------------------


def _causes(node: _Node) -> Iterator[tuple[str, Floats, Mask]]:
    """What may keep input from a GPU: its name, its values, and when it did."""
    for text, key, threshold in (
        ("the CPUs were busy", "cpu_utilization_percentage", CPU_BUSY),
        ("one core was busy all the time", "cpu_core_max_percentage", CORE_BUSY),
        ("the CPU quota was used up", "container_cpu_utilization_percentage", CPU_BUSY),
        ("a disk was busy", "disk_busy_percentage", DISK_BUSY),
        ("tasks waited for a disk", "pressure_io_some_percentage", IO_WAITED),
        ("CPUs waited for a disk", "cpu_iowait_percentage", IO_WAITED),
    ):
        values = node.steady(key)
        if values is not None:
            yield text, values, values >= threshold


def _judge_input(node: _Node) -> Iterator[Finding]:
    import numpy as np

    used = node.used_gpus()
    if not used:
        return
    together = np.column_stack(list(used.values()))
    known = ~np.isnan(together).all(axis=1)
    utilization = np.full(len(together), np.nan)
    utilization[known] = np.nanmean(together[known], axis=1)
    idle = utilization < GPU_IDLE
    causes = sorted(
        (
            (_share(idle & mask, known & _known(values)), text, idle & mask)
            for text, values, mask in _causes(node)
        ),
        key=lambda cause: -cause[0],
    )
    if not causes or causes[0][0] < OFTEN:
        return
    share, text, mask = causes[0]
    evidence = [
        _mean_and_max(f"utilization of {_numbers('GPU', list(used))}", utilization),
        *(f"idle while {why}: {_of_time(part)}" for part, why, _ in causes if part >= SOMETIMES),
        node.longest_text(mask),
    ]
    subject = "The GPU" if len(used) == 1 else "The GPUs"
    sentence = f"{subject} waited for input: idle while {text}, for {_of_time(share)}."
    yield Finding("input", LIMITED, sentence, tuple(evidence), share, node.longest(mask))


def _judge_disk(node: _Node) -> Iterator[Finding]:
    import numpy as np

    stalled = node.steady("pressure_io_full_percentage")
    busy = node.steady("disk_busy_percentage")
    waited = [
        values
        for key in ("pressure_io_some_percentage", "cpu_iowait_percentage")
        if (values := node.steady(key)) is not None
    ]
    masks = []
    if stalled is not None:
        masks.append((stalled >= IO_WAITED, _known(stalled)))
    if busy is not None and waited:
        waits = np.logical_or.reduce([values >= IO_WAITED for values in waited])
        masks.append(((busy >= DISK_BUSY) & waits, _known(busy)))
    if not masks:
        return
    share, mask = max(((_share(mask, known), mask) for mask, known in masks), key=lambda x: x[0])
    if share < OFTEN:
        return
    evidence = [
        *_mean_of(node, "pressure_io_some_percentage", "some task waited for a disk"),
        *_mean_of(node, "pressure_io_full_percentage", "all tasks waited for a disk"),
        *_mean_of(node, "cpu_iowait_percentage", "CPUs idle, waiting for a disk"),
        *_mean_of(node, "disk_busy_percentage", "busiest disk"),
        node.longest_text(mask),
    ]
    sentence = f"The disks were the limit: programs waited for them during {_of_time(share)}."
    yield Finding("disk", LIMITED, sentence, tuple(evidence), share, node.longest(mask))


def _judge_disk_space(node: _Node) -> Iterator[Finding]:
    for key in node.tracks:
        if not key.startswith("disk_usage_percentage"):
            continue
        peak = node.peak(key)
        if peak is not None and peak[0] >= DISK_FULL:
            which = key.removeprefix("disk_usage_percentage")
            name = f"The disk{which.replace('_', ' ')}"
            sentence = f"{name} was nearly full: {_percent(peak[0])}."
            text = f"highest {duration(peak[1] - node.start)} after the start"
            yield Finding(f"disk_space{which}", HINT, sentence, (text,), 0.0)


# ---- GPUs ---------------------------------------------------------------------------------------


def _judge_gpus(node: _Node) -> Iterator[Finding]:
    used = {number: values for number, values in node.used_gpus().items() if _is_enough(values)}
    busy = {n: _share(v >= GPU_BUSY, _known(v)) for n, v in used.items()}
    limited = {number: share for number, share in busy.items() if share >= MOST}
    if limited:
        share = max(limited.values())
        best = max(limited, key=limited.__getitem__)
        evidence = [
            *_each("utilization", {n: used[n] for n in limited}),
            node.longest_text(used[best] >= GPU_BUSY),
            *_mean_of(node, f"gpu_{best}_sm_active_percentage", f"SMs of GPU {best} at work"),
        ]
        verb = "was" if len(limited) == 1 else "were"
        sentence = (
            f"{_numbers('GPU', list(limited))} {verb} the limit: at work for {_of_time(share)}, "
            "as a training run should be."
        )
        when = node.longest(used[best] >= GPU_BUSY)
        yield Finding("gpu", LIMITED, sentence, tuple(evidence), share, when)
    yield from _judge_idle_gpus(node, used)


def _judge_idle_gpus(node: _Node, used: Mapping[int, Floats]) -> Iterator[Finding]:
    means = {number: _mean(values) for number, values in used.items()}
    idle = [number for number, mean in means.items() if mean < GPU_IDLE]
    if idle:
        worst = min(idle, key=means.__getitem__)
        mask = used[worst] < GPU_IDLE
        share = _share(mask, _known(used[worst]))
        evidence = [
            *_each("utilization", {number: used[number] for number in idle}),
            f"GPU {worst} below {_percent(GPU_IDLE)} for {_of_time(share)}",
            node.longest_text(mask),
        ]
        verb = "was" if len(idle) == 1 else "were"
        mean = sum(means[number] for number in idle) / len(idle)
        sentence = f"{_numbers('GPU', idle)} {verb} mostly idle: {_percent(mean)} in the mean."
        yield Finding("gpu_idle", HINT, sentence, tuple(evidence), share, node.longest(mask))
    unused = [
        number
        for number in node.gpus()
        if (peak := node.peak(f"gpu_{number}_utilization_percentage")) and peak[0] < GPU_USED
    ]
    if unused:
        verb = "was" if len(unused) == 1 else "were"
        sentence = f"{_numbers('GPU', unused)} {verb} not used."
        text = f"utilization never above {_percent(GPU_USED)}"
        yield Finding("gpu_unused", NOTE if used else HINT, sentence, (text,), 0.0)


def _judge_gpu_memory(node: _Node) -> Iterator[Finding]:
    peaks = {
        number: peak
        for number in node.gpus()
        if (peak := node.peak(f"gpu_{number}_memory_usage_percentage"))
        and peak[0] >= GPU_MEMORY_FULL
    }
    if not peaks:
        return
    evidence = tuple(
        f"GPU {number}: highest {_percent(peak)}, {duration(time - node.start)} after the start"
        for number, (peak, time) in list(peaks.items())[:MOST_NAMED]
    )
    sentence = (
        f"The memory of {_numbers('GPU', list(peaks))} was nearly full: a larger batch would not "
        "fit (some frameworks take it all at once, needed or not)."
    )
    yield Finding("gpu_memory", NOTE, sentence, evidence, 0.0)


def _judge_gpu_clocks(node: _Node) -> Iterator[Finding]:
    slowed = {
        number: values
        for number in node.gpus()
        if (values := node.steady(f"gpu_{number}_throttled_percentage")) is not None
        and _is_enough(values)
        and _mean(values) >= GPU_THROTTLED
    }
    if not slowed:
        return
    heat = [node.peak(f"gpu_{number}_temperature_celsius") for number in slowed]
    hottest = max((peak[0] for peak in heat if peak is not None), default=None)
    is_hot = hottest is not None and hottest >= GPU_HOT
    evidence = [*_each("readings with slowed clocks", slowed)]
    if hottest is not None:
        evidence.append(f"highest temperature: {hottest:.0f} °C")
    worst = max(slowed, key=lambda number: _mean(slowed[number]))
    mask = slowed[worst] >= GPU_THROTTLED
    reason = "Heat" if is_hot else "Power, heat or hardware"
    sentence = (
        f"{reason} slowed the clocks of {_numbers('GPU', list(slowed))}: in "
        f"{_percent(_mean(slowed[worst]))} of readings."
    )
    share = _share(mask, _known(slowed[worst]))
    severity = LIMITED if is_hot else HINT
    yield Finding("gpu_clocks", severity, sentence, tuple(evidence), share, node.longest(mask))


# ---- network ------------------------------------------------------------------------------------


def _rates(node: _Node) -> Iterator[tuple[str, Floats]]:
    """Traffic in MB/s by direction; from the totals where there are no rates."""
    for direction in ("receive", "transmit"):
        values = node.steady(f"network_{direction}_megabytes_per_second")
        total = node.tracks.get(f"network_{direction}_megabytes")
        if values is None and total is not None:
            values = node.means(totals.rate(total, "megabytes per second"))
        if values is not None:
            yield direction, values


def _judge_network(node: _Node) -> Iterator[Finding]:
    """The speed of the link is not known: only traffic that stays at a ceiling is a sign of one."""
    import numpy as np

    idle = None
    machine = node.steady("cpu_utilization_percentage")
    gpus = node.used_gpus()
    if gpus:
        idle = np.logical_and.reduce([values < GPU_BUSY for values in gpus.values()])
    elif machine is not None:
        idle = machine < CPU_BUSY
    for direction, values in _rates(node):
        ceiling = _largest(values)
        mask = values >= NEAR_CEILING * ceiling
        if idle is not None:
            mask = mask & idle
        share = _share(mask, _known(values))
        if idle is None or ceiling < LINK_MEGABYTES or share < MOST:
            continue
        verb = "received" if direction == "receive" else "sent"
        evidence = (
            f"{verb}: mean {_mean(values):.0f} MB/s, highest {ceiling:.0f} MB/s",
            node.longest_text(mask),
            "the speed of the link is not known: compare it with that number",
        )
        sentence = (
            f"The network may have been the limit: {ceiling:.0f} MB/s {verb}, without ups and "
            f"downs, for {_of_time(share)}, while CPUs and GPUs had room."
        )
        yield Finding(f"network_{direction}", HINT, sentence, evidence, share, node.longest(mask))


def _judge_packets(node: _Node) -> Iterator[Finding]:
    for kind, what in (("errors", "had errors"), ("drops", "were dropped")):
        values = node.steady(f"network_{kind}_per_second")
        if values is None or not _is_enough(values) or _mean(values) < LOST_PACKETS:
            continue
        sentence = f"Packets {what}: {_mean(values):.1f} a second in the mean."
        text = f"network {kind}: highest {_largest(values):.0f}/s"
        mask = values >= LOST_PACKETS
        share = _share(mask, _known(values))
        yield Finding(f"packets_{kind}", HINT, sentence, (text,), share, node.longest(mask))


_JUDGES: tuple[Callable[[_Node], Iterator[Finding]], ...] = (
    _judge_kills,
    _judge_memory,
    _judge_memory_stalls,
    _judge_swap,
    _judge_cpu,
    _judge_core,
    _judge_one_core,
    _judge_quota,
    _judge_steal,
    _judge_input,
    _judge_disk,
    _judge_disk_space,
    _judge_gpus,
    _judge_gpu_memory,
    _judge_gpu_clocks,
    _judge_network,
    _judge_packets,
)

# ---- what is missing ----------------------------------------------------------------------------

_NEEDED = (
    ("cpu_utilization_percentage", "no CPU metrics: nothing is said about CPUs"),
    ("cpu_core_max_percentage", "no metrics of single cores (source cpu_detail)"),
    ("system_memory_usage_percentage", "no memory metrics of the machine"),
    ("container_", "no container metrics: there was no limit, or the source was off"),
    ("disk_busy_percentage", "no disk traffic (source disk_io)"),
    ("pressure_", "no pressure metrics: waiting is only guessed from load (source pressure)"),
    ("network_", "no network metrics"),
)


def _not_judged(nodes: Sequence[_Node]) -> Iterator[str]:
    keys = {key for node in nodes for key in node.tracks}
    if not any(_OF_GPU.fullmatch(key) for key in keys):
        yield "no GPU metrics in this run: nothing is said about GPUs"
    for prefix, sentence in _NEEDED:
        if not any(key.startswith(prefix) for key in keys):
            yield sentence
    longest = max((_covered(node) for node in nodes), default=0)
    if longest < FEWEST_STRETCHES:
        yield f"too short for shares of time: fewer than {FEWEST_STRETCHES} stretches have values"


def _covered(node: _Node) -> int:
    """How many stretches have a value of some kind."""
    counts = (
        int(_known(values).sum()) for key in node.tracks if (values := node.steady(key)) is not None
    )
    return max(counts, default=0)
