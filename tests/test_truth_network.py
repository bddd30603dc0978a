"""Rates of chosen interfaces in a network of our own, under traffic of known size.

Each test is a program in fresh namespaces of the network and of mounts: it sees what a container
sees, and whoever else uses the network does not show.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from tests.support import PATIENCE_SECONDS

pytestmark = pytest.mark.native

DATAGRAMS = 2000
PAYLOAD_BYTES = 1000
FRAME_BYTES = PAYLOAD_BYTES + 8 + 20 + 14
"""With the headings of UDP, IPv4 and Ethernet; the last of them a VLAN's device counts, too."""

SENT = "network_transmit_megabytes_per_second"

_PROGRAM = textwrap.dedent(
    """
    import json, socket, subprocess, sys, time
    from pathlib import Path

    def run(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit("cannot: " + " ".join(command) + ": " + done.stderr)

    # Here /sys/class/net is that of whoever mounts it.
    run("mount", "-t", "sysfs", "sysfs", "/sys")

    from sysmetrics_native import Sampler

    setup, address, choices, counted, datagrams, size = json.loads(sys.argv[1])
    peer = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    ours = Path("/proc/self/ns/net").readlink()
    while Path(f"/proc/{peer.pid}/ns/net").readlink() == ours:
        time.sleep(0.001)
    try:
        for line in setup:
            run(*line.replace("PEER", str(peer.pid)).split())

        def sent(name):
            return int(Path("/sys/class/net", name, "statistics/tx_bytes").read_text())

        def all_sent():
            return {name: sent(name) for name in counted}

        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

        def send(count, to):
            for _ in range(count):
                try:
                    sender.sendto(bytes(size), (to, 9))
                except OSError:  # that the port is closed, from the other side
                    sender.sendto(bytes(size), (to, 9))

        send(1, address)  # finds its neighbour
        time.sleep(0.2)
        samplers = [
            Sampler(0.01, 1000000, backend="native", sources="network_rate",
                    network_interfaces=choice)
            for choice in choices
        ]
        outer = all_sent()
        for sampler in samplers:
            sampler.start()
        inner = all_sent()
        send(datagrams, address)
        send(datagrams // 2, "127.0.0.1")
        time.sleep(0.3)  # a window's ends are known to the microsecond only
        inner_end = all_sent()
        for sampler in samplers:
            sampler.stop()
        outer_end = all_sent()
        moved = {}
        for choice, sampler in zip(choices, samplers):
            (window,) = sampler.windows(timeout=0)
            rate = window["network_transmit_megabytes_per_second"].mean
            moved[choice] = None if rate is None else rate * (window.end - window.start) * 1e6
        print(json.dumps({
            "moved": moved,
            "inner": {name: inner_end[name] - inner[name] for name in counted},
            "outer": {name: outer_end[name] - outer[name] for name in counted},
            "errors": [sampler.stats()["sources"]["network_rate"]["errors"]
                       for sampler in samplers],
        }))
    finally:
        peer.communicate()
    """
)


class Traffic(NamedTuple):
    """Bytes that were sent while samplers ran."""

    moved: dict[str, float | None]
    """What the sampler of each choice says."""
    inner: dict[str, int]
    """What each interface says that it sent while all samplers ran …"""
    outer: dict[str, int]
    """… and since before the first of them."""
    errors: list[int]

    def check(self, choice: str, names: Sequence[str]) -> None:
        """That it is what these interfaces have sent together."""
        moved = self.moved[choice]
        assert moved is not None
        slack = 1e-5 * moved
        assert sum(self.inner[name] for name in names) - slack <= moved
        assert moved <= sum(self.outer[name] for name in names) + slack


def network_traffic(
    setup: Sequence[str], choices: Sequence[str], counted: Sequence[str], address: str
) -> Traffic:
    """Make a network, send datagrams to an address in it and half as many over loopback."""
    ip = shutil.which("ip")
    unshare = shutil.which("unshare")
    if ip is None or unshare is None or not sys.platform.startswith("linux"):
        pytest.skip("needs the programs ip and unshare")
    namespaces = [unshare, "--net", "--mount"]
    if subprocess.run([*namespaces, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no namespaces can be made here: not root")
    argument = json.dumps([setup, address, choices, counted, DATAGRAMS, PAYLOAD_BYTES])
    done = subprocess.run(
        [*namespaces, sys.executable, "-c", _PROGRAM, argument],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_SECONDS,
        check=False,
    )
    if "Unknown device type" in done.stderr or "not supported" in done.stderr:
        pytest.skip(f"this kernel has no such interface: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return Traffic(**answer)


PAIR = [
    "ip link set lo up",
    "ip link add eth0 type veth peer name peer0 netns PEER",
    "ip link set eth0 up",
    "nsenter -t PEER -n ip link set peer0 up",
]
"""One end of a pair is ours, as in a container; the other is another container's."""

PEER_ADDRESS = "nsenter -t PEER -n ip addr add 10.9.0.2/24 dev peer0"

LAYERS = {
    "pair": (["ip addr add 10.9.0.1/24 dev eth0", PEER_ADDRESS], "eth0"),
    "bridge": (
        [
            "ip link add br0 type bridge",
            "ip link set eth0 master br0",
            "ip link set br0 up",
            "ip addr add 10.9.0.1/24 dev br0",
            PEER_ADDRESS,
        ],
        "br0",
    ),
    "macvlan": (
        [
            "ip link add link eth0 name mac0 type macvlan",
            "ip link set mac0 up",
            "ip addr add 10.9.0.1/24 dev mac0",
            PEER_ADDRESS,
        ],
        "mac0",
    ),
    "vlan": (
        [
            "ip link add link eth0 name eth0.5 type vlan id 5",
            "ip link set eth0.5 up",
            "ip addr add 10.9.0.1/24 dev eth0.5",
            "nsenter -t PEER -n ip link add link peer0 name peer0.5 type vlan id 5",
            "nsenter -t PEER -n ip link set peer0.5 up",
            "nsenter -t PEER -n ip addr add 10.9.0.2/24 dev peer0.5",
        ],
        "eth0.5",
    ),
    "bond": (
        [
            "ip link add bond0 type bond mode active-backup",
            "ip link set eth0 down",
            "ip link set eth0 master bond0",
            "ip link set bond0 up",
            "ip addr add 10.9.0.1/24 dev bond0",
            PEER_ADDRESS,
        ],
        "bond0",
    ),
}
"""What is on top of our end: how it is made, and what has the address."""


@pytest.mark.parametrize("layer", LAYERS)
def test_a_byte_counts_once_whatever_is_on_top_of_what(layer):
    setup, top = LAYERS[layer]
    names = list(dict.fromkeys(["lo", "eth0", top]))
    choices = ["physical", "all", "lo", "eth0", top, f"eth0,{top}", "missing", "missing,eth0"]
    traffic = network_traffic(PAIR + setup, choices, names, "10.9.0.2")
    # The kernel itself counts them on each.
    assert traffic.inner["lo"] >= DATAGRAMS // 2 * FRAME_BYTES
    for name in names[1:]:
        assert traffic.inner[name] >= DATAGRAMS * (FRAME_BYTES - 14)
    traffic.check("physical", ["eth0"])
    moved = traffic.moved["physical"]
    assert moved is not None
    assert moved * (1 + 1e-5) >= DATAGRAMS * FRAME_BYTES
    assert moved < 1.5 * DATAGRAMS * FRAME_BYTES
    traffic.check("all", names)
    traffic.check("lo", ["lo"])
    traffic.check("eth0", ["eth0"])
    traffic.check(top, [top])
    traffic.check(f"eth0,{top}", names[1:])
    traffic.check("missing,eth0", ["eth0"])
    assert traffic.moved["missing"] is None
    missing = choices.index("missing")
    assert traffic.errors[missing] > 0
    assert not any(traffic.errors[:missing] + traffic.errors[missing + 1 :])
