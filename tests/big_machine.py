"""The files of a big machine: /proc and /sys of a training server, as far as we read them.

224 CPUs in two packages, 24 NVMe disks with partitions and what is made of them, 12 network cards
with bonds, VLANs, bridges and 200 containers, 8 InfiniBand adapters. Each step advances every
counter by an amount of its own; what must not be counted twice advances by much more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.procfs_tree import NET_DEV_HEADINGS, ProcfsTree

CPUS = 224
DISKS = 24
CARDS = 12
CONTAINERS = 200
ADAPTERS = 8
WITHOUT_DISCARDS = 5
"""The adapter that does not count them."""

CPU_CLOCKS = (
    *("user", "nice", "system", "idle", "iowait"),
    *("irq", "softirq", "steal", "guest", "guest_nice"),
)
BUSIEST_CPU = 17
BUSIEST_DISK = 7
SWITCHES = 1_234_567
MAJOR_FAULTS = 89

PACKAGE_JOULES = (500, 300)
ENERGY_RANGE = 262_143_328_850

STALLS = {"cpu": (50_000, 0), "memory": (7_000, 3_000), "io": (90_000, 60_000)}
"""Microseconds of "some" and "full" that a step adds."""

MUCH = 10**9


def cpu_ticks(cpu: int) -> dict[str, int]:
    """What a step adds to each clock of a CPU: a hundred ticks in all."""
    ticks = dict.fromkeys(CPU_CLOCKS, 0)
    ticks |= {"nice": 1, "system": 5, "iowait": 3, "irq": 1, "softirq": 1, "steal": 2}
    ticks["user"] = 85 if cpu == BUSIEST_CPU else 10 + cpu % 7
    ticks["guest"] = 4  # which are among those of the user
    ticks["idle"] = 100 - sum(ticks.values()) + ticks["guest"]
    return ticks


def disk_counts(disk: int) -> dict[str, int]:
    """What a step adds to a disk, sectors being 512 bytes."""
    return {
        "reads": 10 * (disk + 1),
        "read_sectors": 80 * (disk + 1),
        "writes": 20 * (disk + 1),
        "written_sectors": 800 * (disk + 1),
        "busy_ms": 90 if disk == BUSIEST_DISK else 40,
    }


def card_counts(card: int) -> dict[str, int]:
    """What a step adds to a network card: bytes, errors and drops of both directions."""
    return {
        "received": 1_000_000 * (card + 1),
        "sent": 300_000 * (card + 1),
        "errors": 3 * card,
        "drops": 5 * card + 1,
    }


def adapter_counts(adapter: int) -> dict[str, int]:
    """What a step adds to the port of an adapter: data in words of 4 bytes."""
    counts = {
        "port_rcv_data": 250_000 * (adapter + 1),
        "port_xmit_data": 125_000 * (adapter + 2),
        "port_rcv_errors": 7 * adapter,
    }
    if adapter != WITHOUT_DISCARDS:
        counts["port_xmit_discards"] = 11
    return counts


class BigMachine:
    """A folder with a `proc` and a `sys`."""

    def __init__(self, root: Path) -> None:
        self.step = 0
        (root / "proc").mkdir()
        self.procfs = ProcfsTree(root / "proc")
        self.sysfs = root / "sys"
        self._write_processors()
        self._write_memory()
        self._write_blocks()
        self._write_interfaces()
        self._write_sensors()
        self._write_counters()

    def advance(self) -> None:
        """Every counter goes on by one step."""
        self.step += 1
        self._write_counters()

    def _proc(self, name: str, content: str) -> None:
        (self.procfs.root / name).parent.mkdir(parents=True, exist_ok=True)
        self.procfs.write(name, content)

    def _sys(self, name: str, content: object = "") -> None:
        path = self.sysfs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n", encoding="ascii")

    # ---- what stays as it is --------------------------------------------------------------------

    def _write_processors(self) -> None:
        for cpu in range(CPUS):
            kilohertz = 2_000_000 + 1000 * cpu
            self._sys(f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", kilohertz)
        self._proc("loadavg", "200.25 180.50 90.75 230/9876 123456\n")

    def _write_memory(self) -> None:
        self.procfs.write_meminfo(
            MemTotal=2_113_929_216,
            MemFree=1_000_000_000,
            MemAvailable=1_585_446_912,
            Buffers=1_234_567,
            Cached=400_000_000,
            SwapCached=1_000,
            SwapTotal=8_388_604,
            SwapFree=8_123_904,
            Dirty=108,
            Writeback=12,
        )

    def _write_blocks(self) -> None:
        for name in [*(f"nvme{disk}n1" for disk in range(DISKS)), *self._made_of_disks()]:
            self._sys(f"block/{name}/size", 1)

    @staticmethod
    def _made_of_disks() -> list[str]:
        return [
            *("md0", "md127"),
            *(f"dm-{number}" for number in range(10)),
            *(f"loop{number}" for number in range(16)),
        ]

    def _write_interfaces(self) -> None:
        for card in range(CARDS):
            self._sys(f"class/net/ens{card}/type", 1)
            self._sys(f"class/net/ens{card}/device/vendor", "0x15b3")
        for name, below in self._made_of_cards().items():
            self._sys(f"class/net/{name}/type", 772 if name == "lo" else 1)
            for lower in below:
                self._sys(f"class/net/{name}/lower_{lower}/type", 1)
                self._sys(f"class/net/{lower}/upper_{name}/type", 1)
        for bond in ("bond0", "bond1"):
            self._sys(f"class/net/{bond}/bonding/mode", "802.3ad 4")
        for bridge in ("br0", "docker0"):
            self._sys(f"class/net/{bridge}/bridge/bridge_id", 1)
        for number in range(CONTAINERS):
            self._sys(f"class/net/veth{number}/brport/state", 3)

    @staticmethod
    def _made_of_cards() -> Mapping[str, list[str]]:
        """Interfaces that are no cards, and what is directly below them."""
        return {
            "lo": [],
            "bond0": ["ens0", "ens1"],
            "bond1": ["ens2", "ens3"],
            "bond0.100": ["bond0"],
            "bond0.200": ["bond0"],
            "ens4.7": ["ens4"],
            "br0": ["bond1"],
            "docker0": [],
            "dummy0": [],
            "wg0": [],
            **{f"veth{number}": [] for number in range(CONTAINERS)},
        }

    def _write_sensors(self) -> None:
        for package in range(2):
            zone = f"class/powercap/intel-rapl:{package}"
            self._sys(f"{zone}/name", f"package-{package}")
            self._sys(f"{zone}/max_energy_range_uj", ENERGY_RANGE)
            self._sys(f"class/hwmon/hwmon{package}/name", "coretemp")
            for sensor in range(1, 58):
                path = f"class/hwmon/hwmon{package}/temp{sensor}_input"
                self._sys(path, 83_000 if (package, sensor) == (1, 40) else 40_000 + 500 * sensor)
                self._sys(path.replace("input", "crit"), 100_000)
        parts = {"intel-rapl:0:0": "core", "intel-rapl:0:1": "dram", "intel-rapl:1:0": "dram"}
        for zone, name in {
            **parts,
            "intel-rapl:2": "psys",
            "intel-rapl-mmio:0": "package-0",
        }.items():
            self._sys(f"class/powercap/{zone}/name", name)
            self._sys(f"class/powercap/{zone}/max_energy_range_uj", ENERGY_RANGE)
        for disk in range(DISKS):
            self._sys(f"class/hwmon/hwmon{2 + disk}/name", "nvme")
            self._sys(f"class/hwmon/hwmon{2 + disk}/temp1_input", 95_000)

    # ---- what advances --------------------------------------------------------------------------

    def _write_counters(self) -> None:
        self._write_stat()
        self._proc("vmstat", f"nr_free_pages 1\npgmajfault {1000 + MAJOR_FAULTS * self.step}\n")
        self._write_diskstats()
        self._write_net_dev()
        self._write_adapters()
        self._write_energy()
        self._write_pressure()

    def _write_stat(self) -> None:
        clocks = [
            [1_000_000 + cpu + count * self.step for count in cpu_ticks(cpu).values()]
            for cpu in range(CPUS)
        ]
        lines = ["cpu  " + " ".join(str(sum(values)) for values in zip(*clocks, strict=True))]
        lines += [f"cpu{cpu} " + " ".join(map(str, values)) for cpu, values in enumerate(clocks)]
        lines.append("intr 99999 " + " ".join("17" for _ in range(40 * CPUS)))
        lines.append(f"ctxt {10_000_000_000 + SWITCHES * self.step}")
        lines += ["btime 1700000000", "processes 5", "procs_running 230", "procs_blocked 0"]
        self._proc("stat", "\n".join(lines) + "\n")

    def _write_diskstats(self) -> None:
        lines = []
        much = dict.fromkeys(disk_counts(0), MUCH)
        for disk in range(DISKS):
            devices = {f"nvme{disk}n1": disk_counts(disk)}
            devices |= {f"nvme{disk}n1p{partition}": much for partition in (1, 2, 3)}
            lines += [self._disk_line(name, counts) for name, counts in devices.items()]
        lines += [self._disk_line(name, much) for name in self._made_of_disks()]
        self._proc("diskstats", "".join(lines))

    def _disk_line(self, name: str, counts: Mapping[str, int]) -> str:
        now = {key: 5000 + count * self.step for key, count in counts.items()}
        return (
            f" 259 0 {name} {now['reads']} 9 {now['read_sectors']} 9 {now['writes']} 9 "
            f"{now['written_sectors']} 9 0 {now['busy_ms']} 9 0 0 0 0 0 0\n"
        )

    def _write_net_dev(self) -> None:
        much = dict.fromkeys(card_counts(0), MUCH)
        interfaces = {f"ens{card}": card_counts(card) for card in range(CARDS)}
        interfaces |= dict.fromkeys(self._made_of_cards(), much)
        lines = [NET_DEV_HEADINGS]
        for name, counts in interfaces.items():
            now = {key: count * self.step for key, count in counts.items()}
            # Errors are all of the one direction, drops all of the other.
            lines.append(
                f"{name:>10}: {now['received'] + 2**33} {self.step} {now['errors']} 0 0 0 0 0 "
                f"{now['sent'] + 2**33} {self.step} 0 {now['drops']} 0 0 0 0\n"
            )
        self._proc("net/dev", "".join(lines))

    def _write_adapters(self) -> None:
        for adapter in range(ADAPTERS):
            counters = f"class/infiniband/mlx5_{adapter}/ports/1/counters"
            for name, count in adapter_counts(adapter).items():
                self._sys(f"{counters}/{name}", 2**40 + count * self.step)
            if adapter == WITHOUT_DISCARDS:
                self._sys(f"{counters}/port_xmit_discards", "N/A (no PMA)")
            self._sys(f"{counters}/link_downed", MUCH * self.step)

    def _write_energy(self) -> None:
        """The counter of the second package wraps in the first step."""
        begin = (1_000_000, ENERGY_RANGE - 1_000_000)
        for package, joules in enumerate(PACKAGE_JOULES):
            now = (begin[package] + joules * 1_000_000 * self.step) % ENERGY_RANGE
            self._sys(f"class/powercap/intel-rapl:{package}/energy_uj", now)
        for zone in ("0:0", "0:1", "1:0", "2"):
            self._sys(f"class/powercap/intel-rapl:{zone}/energy_uj", MUCH * self.step)
        self._sys("class/powercap/intel-rapl-mmio:0/energy_uj", MUCH * self.step)

    def _write_pressure(self) -> None:
        for name, stalls in STALLS.items():
            self._proc(
                f"pressure/{name}",
                "".join(
                    f"{kind} avg10=1.23 avg60=4.56 avg300=7.89 total={10**12 + stall * self.step}\n"
                    for kind, stall in zip(("some", "full"), stalls, strict=True)
                ),
            )
