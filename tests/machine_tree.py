"""Folders that stand in for /proc and /sys of a machine as large as one likes."""

from __future__ import annotations

import os
from pathlib import Path

from tests.procfs_tree import NET_DEV_HEADINGS

_TICKS = "48110251 11973 9821004 903115870 40112 0 310998 0 0 0"
_INTERRUPTS = 2000
_COUNTERS = ("port_rcv_data", "port_xmit_data", "port_rcv_errors", "port_xmit_discards")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


class MachineTree:
    """What nobody has given it is not there. The numbers are those of a machine long up."""

    def __init__(self, root: Path) -> None:
        self.procfs = root / "proc"
        self.sysfs = root / "sys"
        for folder in (self.procfs, self.sysfs):
            folder.mkdir(parents=True)
        # Without a `self` of our own pid the procfs is somebody else's.
        (self.procfs / "self").symlink_to(str(os.getpid()))

    def add_cpus(self, count: int) -> None:
        """``stat``, ``loadavg``, and a frequency of each CPU."""
        lines = [f"cpu  {_TICKS}", *(f"cpu{index} {_TICKS}" for index in range(count))]
        interrupts = " ".join("0" if n % 10 else str(7103 * n) for n in range(_INTERRUPTS))
        lines += [f"intr 88011223344 {interrupts}", "ctxt 99887766554", "btime 1700000000"]
        _write(self.procfs / "stat", "\n".join(lines) + "\n")
        _write(self.procfs / "loadavg", "0.45 0.39 0.37 1/612 21377\n")
        for index in range(count):
            folder = self.sysfs / f"devices/system/cpu/cpu{index}/cpufreq"
            _write(folder / "scaling_cur_freq", "2600000\n")

    def add_memory(self) -> None:
        """``meminfo`` and ``vmstat``, of which only what is read is true to the kernel."""
        keys = ("MemTotal", "MemFree", "MemAvailable", "SwapTotal", "SwapFree", "Dirty")
        text = "".join(f"{key}: {16_777_216 - 1_000_000 * i} kB\n" for i, key in enumerate(keys))
        _write(self.procfs / "meminfo", text)
        _write(self.procfs / "vmstat", "pgfault 5042700\npgmajfault 50427\n")

    def add_interfaces(self, count: int) -> None:
        """A card, and beside it the ends of pairs that lead into containers."""
        names = ["eth0", *(f"veth{index}" for index in range(count - 1))]
        lines = [f"{name}: 123456789 1234567 0 0 0 0 0 0 98765432 987654" for name in names]
        text = "".join(f"{line} 0 0 0 0 0 0\n" for line in lines)
        _write(self.procfs / "net/dev", NET_DEV_HEADINGS + text)
        for name in names:
            _write(self.sysfs / f"class/net/{name}/type", "1\n")
        (self.sysfs / "class/net/eth0/device").mkdir()

    def add_disks(self, count: int) -> None:
        """NVMe drives, with two partitions each."""
        numbers = "1472080 154581 83724322 1619264 2118968 990552 96990272 722658 0 265556 2439408"
        names = [f"nvme{index}n1{part}" for index in range(count) for part in ("", "p1", "p2")]
        text = "".join(f" 259 {i} {name} {numbers} 0 0 0 0 0 0\n" for i, name in enumerate(names))
        _write(self.procfs / "diskstats", text)
        for index in range(count):
            (self.sysfs / f"block/nvme{index}n1").mkdir(parents=True)

    def add_rdma(self, adapters: int) -> None:
        """Adapters with a port each."""
        for index in range(adapters):
            for counter in _COUNTERS:
                folder = self.sysfs / f"class/infiniband/mlx5_{index}/ports/1/counters"
                _write(folder / counter, "185473921\n")

    def add_pressure(self) -> None:
        """All three files."""
        line = "avg10=0.00 avg60=0.68 avg300=0.36 total=157123495\n"
        for resource in ("cpu", "memory", "io"):
            _write(self.procfs / f"pressure/{resource}", f"some {line}full {line}")

    def add_energy(self, packages: int, cores: int) -> None:
        """CPU packages that count their energy, with a sensor for each core."""
        for index in range(packages):
            folder = self.sysfs / f"class/powercap/intel-rapl:{index}"
            _write(folder / "name", f"package-{index}\n")
            _write(folder / "energy_uj", "210492718253\n")
            _write(folder / "max_energy_range_uj", "262143328850\n")
            sensors = self.sysfs / f"class/hwmon/hwmon{index}"
            _write(sensors / "name", "coretemp\n")
            for core in range(cores):
                _write(sensors / f"temp{core + 1}_input", f"{40000 + 1000 * (core % 20)}\n")

    def add_container(self) -> None:
        """A control group with limits that this process is in."""
        _write(self.procfs / f"{os.getpid()}/cgroup", "0::/job\n")
        _write(self.sysfs / "fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")
        texts = {
            "cpu.max": "200000 100000\n",
            "cpu.stat": "usage_usec 4711000\nuser_usec 4000000\nsystem_usec 711000\n"
            "nr_periods 120\nnr_throttled 30\nthrottled_usec 812000\n",
            "memory.max": "8589934592\n",
            "memory.current": "2147483648\n",
            "memory.stat": "".join(f"field_{i} {4096 * i}\n" for i in range(40))
            + "inactive_file 1073741824\n",
            "memory.events": "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n",
        }
        for name, text in texts.items():
            _write(self.sysfs / "fs/cgroup/job" / name, text)
        _write(self.sysfs / "devices/system/cpu/online", "0-7\n")
