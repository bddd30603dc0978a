"""What one reading of each source costs, alone, and how that grows with the machine.

Ours is the CPU time of a reading as `stats()` tells it, of a sampler that has this source and no
other; the floor is bare_read.c, which makes the same system calls on the same files, parses
nothing, and is measured with the same clock. Both wake as often as the source is read in real use,
100 times a second at most: then caches are as cold as they are there. What the machine does not
have is read from a generated tree.

How costs grow is measured on generated trees: the kernel has no work with their files, so what
grows is ours.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.bench import Bench
from benchmarks.big_proc_stat import SHARED_MEMORY
from benchmarks.programs import ServingChild, compile_program, environment, run_program
from benchmarks.report import COLUMNS, Result, Row, at_most, number
from benchmarks.rounds import BARE, NATIVE, Figures, ParticipantFailedError, Samples, back_and_forth
from sysmetrics_native import Sampler
from sysmetrics_native.backends import native
from tests.machine_tree import MachineTree

FIGURE = "cost_us"
TARGET = at_most(1.3)
FASTEST = 100.0
SLOWEST = 10.0
"""Readings a second; sources that are read less often in real use get windows of one reading."""
MOST_READINGS = 40
LONGEST_SECONDS = 1.0
ELSEWHERE = ("gpu", "gpu_detail", "gpu_profiling")
"""Read on a thread of their own: the measure `gpus` is about those."""
ADAPTERS = 8
PACKAGES = 2
CORES = 56
WORKERS = 8
"""Children of the process that `process` is about, like a job with so many DataLoader workers."""
STRANGERS = 2000


class Place(NamedTuple):
    """What a sampler reads."""

    procfs: str = "/proc"
    sysfs: str = "/sys"
    pid: int = 0

    @property
    def options(self) -> list[str]:
        """The child's arguments for it; nothing is read less often for being expensive."""
        paths = [f"procfs_path={self.procfs}", f"sysfs_path={self.sysfs}"]
        return [*paths, f"pid={self.pid}", "overhead_budget=1"]


# ---- the same system calls ----------------------------------------------------------------------

_MOST_GROUP_FILE_BYTES = 16384
_SELDOM = 0.9
"""Seconds between two readings of what sources read about once a second."""


def read(kind: str, path: str, length: int = 0, period: float = 0.0) -> str:
    """A READ of bare_read.c."""
    return f"{kind},{length},{period},{path}"


def whole(root: str, *names: str) -> list[str]:
    """Files that are kept open and read to their end."""
    return [read("whole", f"{root}//{name}") for name in names]


def files(root: str, pattern: str) -> Iterator[str]:
    """Those below a root, as bare_read.c takes them."""
    for path in sorted(Path(root).glob(pattern)):
        yield f"{root}//{path.relative_to(root)}"


def cpu_detail(place: Place) -> list[str]:
    """All of two files, and, seldom, a frequency of each core or those of /proc/cpuinfo."""
    reads = whole(place.procfs, "stat", "loadavg")
    cores = list(files(place.sysfs, "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    if cores:
        return reads + [read("once", path, 32, _SELDOM) for path in cores]
    cpuinfo = Path(place.procfs, "cpuinfo")
    if cpuinfo.exists() and "cpu MHz" in cpuinfo.read_text(encoding="utf-8"):
        reads.append(read("whole", f"{place.procfs}//cpuinfo", 0, _SELDOM))
    return reads


def rdma(place: Place) -> list[str]:
    """Four files of each port, which are opened each time."""
    counters = files(place.sysfs, "class/infiniband/*/ports/*/counters/port_*")
    return [read("once", path, 64) for path in counters]


def energy(place: Place) -> list[str]:
    """A file of each package, kept open, and, seldom, one of each sensor."""
    reads = [
        read("start", path, 32)
        for path in files(place.sysfs, "class/powercap/intel-rapl:[0-9]*/energy_uj")
    ]
    sensors = files(place.sysfs, "class/hwmon/*/temp*_input")
    return reads + [read("once", path, 32, _SELDOM) for path in sensors]


def container(place: Place) -> list[str]:
    """The files of a group of version 2: its limits, which may change, then what is used."""
    names = ("cpu.max", "memory.max", "cpu.stat", "memory.current", "memory.stat", "memory.events")
    return [
        read("start", path, _MOST_GROUP_FILE_BYTES)
        for name in names
        for path in files(place.sysfs, f"fs/cgroup/job/{name}")
    ]


def process(place: Place) -> list[str]:
    """Of each member what it says of itself, and its children; seldom its open files."""
    root = place.procfs
    children = Path(root, f"{place.pid}/task/{place.pid}/children").read_text(encoding="ascii")
    members = [place.pid, *map(int, children.split())]
    reads = [read("once", f"{root}//{pid}/stat", 1024) for pid in members]
    reads += [read("once_whole", f"{root}//{pid}/task/{pid}/children") for pid in members]
    reads += [read("start", f"{root}//meminfo", 64, _SELDOM)]
    return reads + [read("stat", f"{root}//{pid}/fd", 0, _SELDOM) for pid in members]


READS: Mapping[str, Callable[[Place], Sequence[str]]] = {
    "cpu": lambda place: [read("start", f"{place.procfs}//stat", 512)],
    "memory": lambda place: [read("start", f"{place.procfs}//meminfo", 256)],
    "disk_space": lambda _: [read("space", "/")],
    "network": lambda place: whole(place.procfs, "net/dev"),
    "cpu_detail": cpu_detail,
    "memory_detail": lambda place: whole(place.procfs, "meminfo", "vmstat"),
    "disk_io": lambda place: whole(place.procfs, "diskstats"),
    "network_rate": lambda place: whole(place.procfs, "net/dev"),
    "rdma": rdma,
    "pressure": lambda place: [
        read("start", f"{place.procfs}//pressure/{name}", 512) for name in ("cpu", "memory", "io")
    ],
    "energy": energy,
    "process": process,
    "container": container,
}
"""What each source asks the kernel at each reading; looking for devices anew comes seldom."""


def measured() -> list[str]:
    """The sources that are measured here."""
    return [name for name in native.known_sources() if name not in ELSEWHERE]


def is_wanted(bench: Bench, source: str) -> bool:
    """Whether this run is about it."""
    return not bench.only_sources or source in bench.only_sources


# ---- one source ---------------------------------------------------------------------------------


class Pace(NamedTuple):
    """How a source is measured: wake-ups a second, for how long, and how many make a window."""

    rate: float
    seconds: float
    samples: int


def pace_of(source: str) -> Pace:
    """As fast as it is read in real use; a window's end is a reading in any case."""
    interval = native.shortest_intervals()[source]
    usual = FASTEST if interval == 0.0 else min(FASTEST, 1.0 / interval)
    rate = max(usual, SLOWEST)
    seconds = min(MOST_READINGS / rate, LONGEST_SECONDS)
    return Pace(rate, seconds, round(rate) if rate == usual else 1)


def bare(bench: Bench, source: str, place: Place) -> Figures:
    """One run of the floor."""
    if source not in READS:
        raise ParticipantFailedError(f"no bare reads are known for {source}: add them to READS")
    pace = pace_of(source)
    program = compile_program("bare_read", bench.folder)
    arguments = (pace.rate, pace.seconds, *READS[source](place))
    nanoseconds, readings = run_program(program, *arguments, seconds=pace.seconds)
    return {FIGURE: nanoseconds / readings / 1e3}


def ours(child: ServingChild, source: str) -> Figures:
    """One run of our sampler."""
    pace = pace_of(source)
    figures = child.ask(*pace, seconds=pace.seconds)
    return {FIGURE: figures[f"{source}_cost_us"]}


def measure(bench: Bench, source: str, place: Place) -> Samples:
    """Both, in turns."""
    bench.announce(f"{source} of {place.procfs}")
    arguments = ("sampler", "native", source, *place.options)
    with closing(ServingChild(*arguments, folder=bench.folder)) as child:
        pair = [(BARE, partial(bare, bench, source, place)), (NATIVE, partial(ours, child, source))]
        return bench.alternate(pair if bench.quick else back_and_forth(*pair))


def has(source: str) -> bool:
    """Whether this machine has it."""
    try:
        Sampler(backend="native", sources=source)
    except ValueError:
        return False
    return True


# ---- growth -------------------------------------------------------------------------------------


class Growth(NamedTuple):
    """A thing that machines have more or less of, and the sources that mind."""

    what: str
    counts: tuple[int, ...]
    sources: tuple[str, ...]
    add: Callable[[MachineTree, int], None]


GROWTH = (
    Growth("CPUs", (2, 32, 224), ("cpu", "cpu_detail"), MachineTree.add_cpus),
    Growth("interfaces", (2, 50, 500), ("network", "network_rate"), MachineTree.add_interfaces),
    Growth("disks", (2, 50), ("disk_io",), MachineTree.add_disks),
)


def growths(bench: Bench, folder: Path) -> Iterator[tuple[str, str, Samples]]:
    """Of each source and size: the source, what there is of what, and its turns."""
    for growth in GROWTH:
        wanted = [source for source in growth.sources if is_wanted(bench, source)]
        for count in growth.counts if wanted else ():
            tree = MachineTree(folder / f"{growth.what}-{count}")
            growth.add(tree, count)
            place = Place(str(tree.procfs), str(tree.sysfs))
            for source in wanted:
                yield source, f"{count} {growth.what}", measure(bench, source, place)


@contextmanager
def family(bench: Bench, count: int) -> Iterator[int]:
    """A process that is there for as long, with so many children; its pid."""
    command = [sys.executable, "-m", "benchmarks.children.family", str(count)]
    with subprocess.Popen(
        command,
        env=environment({}),
        cwd=bench.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as root:
        assert root.stdout is not None
        yield int(root.stdout.readline())


def families(bench: Bench) -> Iterator[tuple[str, str, Samples]]:
    """The same of processes, which no tree can stand in for."""
    for count in (1, 10, 100):
        with family(bench, count) as pid:
            place = Place(pid=pid)
            yield "process", f"{count} descendants", measure(bench, "process", place)
    with family(bench, STRANGERS), family(bench, 10) as pid:
        what = f"10 descendants and {STRANGERS} strangers"
        yield "process", what, measure(bench, "process", Place(pid=pid))


# ---- all of it ----------------------------------------------------------------------------------


def alone(bench: Bench, source: str, lacking: Place) -> tuple[Samples, bool]:
    """The turns of one source, and whether they were on the generated tree."""
    if source == "process":
        with family(bench, WORKERS) as pid:
            return measure(bench, source, Place(pid=pid)), False
    is_here = has(source)
    return measure(bench, source, Place() if is_here else lacking), not is_here


def generated(folder: Path) -> Place:
    """A machine that has what this one may lack."""
    tree = MachineTree(folder / "machine")
    tree.add_rdma(ADAPTERS)
    tree.add_energy(PACKAGES, CORES)
    tree.add_memory()
    tree.add_container()
    return Place(str(tree.procfs), str(tree.sysfs))


@dataclass
class Costs(Result):
    """What was found, and which sources were read from a generated tree."""

    generated: set[str] = field(default_factory=set)


def row(source: str, samples: Samples) -> Row:
    """The line of one source."""
    ratio = samples.ratio(NATIVE, BARE, FIGURE)
    figures = samples.medians(FIGURE, COLUMNS)
    return Row(f"source {source}", "µs/reading", figures, ratio, TARGET, ratio)


def run(bench: Bench) -> Costs:
    """Measures every source, then how costs grow."""
    result = Costs([], {})
    parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else bench.folder
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        lacking = generated(folder)
        for source in filter(partial(is_wanted, bench), measured()):
            samples, is_generated = alone(bench, source, lacking)
            result.samples[source] = samples
            result.rows.append(row(source, samples))
            if is_generated:
                result.generated.add(source)
        grown = [*growths(bench, folder)]
        if "process" in measured() and is_wanted(bench, "process"):
            grown += families(bench)
        for source, what, samples in grown:
            result.samples[f"{source}, {what}"] = samples
            figures = samples.medians(FIGURE, COLUMNS)
            result.rows.append(Row(f"source {source}, {what}", "µs/reading", figures))
    names = ", ".join(sorted(result.generated))
    result.notes.append(f"from a generated tree, as is what has more or less of a thing: {names}")
    return result


# ---- docs/costs.json ----------------------------------------------------------------------------


def _cost(samples: Samples) -> dict[str, float | None]:
    cost, ratio = samples.median(NATIVE, FIGURE), samples.ratio(NATIVE, BARE, FIGURE)
    return {
        "microseconds": None if cost is None else float(number(cost)),
        "ratio": None if ratio is None else round(ratio, 2),
    }


def write_costs(path: Path, result: Costs) -> None:
    """What docs/metrics.md has of it."""
    kernel = ".".join(platform.release().split(".")[:2])
    sources = {name: found for name, found in result.samples.items() if ", " not in name}
    grown = {name: found for name, found in result.samples.items() if ", " in name}
    document = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} CPUs, {platform.system()} {kernel}, {platform.machine()}",
        "sources": {
            name: {**_cost(found), "generated": name in result.generated}
            for name, found in sources.items()
        },
        "growth": [
            {"source": name.split(", ")[0], "what": name.split(", ")[1], **_cost(found)}
            for name, found in grown.items()
        ],
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
