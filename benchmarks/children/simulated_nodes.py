"""simulated_nodes PLAN: the monitors of many nodes that log to one run, with synthetic windows.

PLAN is a `Plan` as JSON. For each node there is what a real one has: MLflow's
own `SystemMetricsMonitor` with its thread, whose readings are synthetic, or a `Delivery` of this
package. Prints what the servers, this process and the windows took from the end of the warm-up on,
and writes every request of it to a file.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import resource
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from benchmarks import process_tree
from benchmarks.children.node_windows import window
from benchmarks.children.own_requests import Asked, Requests
from benchmarks.children.simulation_plan import Plan
from sysmetrics_native.delivery import Delivery

PREPARATION_SECONDS = 1.0
STACK_BYTES = 512 * 1024
"""Of a thread: there are thousands, and they are shallow."""


class Node(ABC):
    """One node's monitor."""

    @abstractmethod
    def start(self) -> None:
        """Begins with the first window."""


class Synthetic(BaseMetricsMonitor):
    """Readings for MLflow's monitor."""

    def collect_metrics(self) -> None:
        for name, value in window().items():
            self._metrics[name].append(value)

    def aggregate_metrics(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self._metrics.items()}


class StockNode(Node):
    """MLflow's own monitor, with one sample a window, as is its default."""

    def __init__(self, plan: Plan, name: str) -> None:
        stock: Any = SystemMetricsMonitor  # MLflow's own code has no types
        if not stock.__module__.startswith("mlflow."):
            sys.exit("MLflow's own monitor is not the one that would run")
        self._monitor = stock(
            plan.run_id, plan.window_seconds, 1, node_id=name, tracking_uri=plan.uri
        )
        synthetic: Any = Synthetic
        self._monitor.monitors = [synthetic()]

    def start(self) -> None:
        self._monitor.start()


class Feeder:
    """Hands windows to the deliveries of many nodes as their samplers would."""

    def __init__(self, window_seconds: float) -> None:
        self._window_seconds = window_seconds
        self._due: list[tuple[float, int, OurNode]] = []
        self._numbers = count()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, node: OurNode) -> None:
        """The node's first window ends in a window's time."""
        with self._changed:
            self._push(time.monotonic() + self._window_seconds, node)
            self._changed.notify()

    def _push(self, at: float, node: OurNode) -> None:
        heapq.heappush(self._due, (at, next(self._numbers), node))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    wait = self._due[0][0] - time.monotonic() if self._due else None
                    self._changed.wait(wait)
                at, _, node = heapq.heappop(self._due)
                self._push(at + self._window_seconds, node)
            node.put()


class OurNode(Node):
    """A delivery of this package."""

    def __init__(self, plan: Plan, name: str, feeder: Feeder, spool: str) -> None:
        self._prefix = f"system/{name}/"
        self._feeder = feeder
        self._delivery = Delivery(
            plan.run_id,
            plan.uri,
            spool_dir=spool,
            window_seconds=plan.window_seconds,
            delivery_interval=plan.delivery_interval,
            resume=False,
            on_run_over=lambda: None,
            key_prefix=self._prefix,
        )

    def start(self) -> None:
        self._delivery.start()
        self._feeder.add(self)

    def put(self) -> None:
        """A window has ended."""
        values = {self._prefix + name: value for name, value in window().items()}
        self._delivery.put(round(time.time() * 1000), values)


def make_nodes(plan: Plan) -> list[Node]:
    """All nodes, ready to start."""
    names = [f"node-{number:04d}" for number in range(plan.nodes)]
    if plan.stock:
        return [StockNode(plan, name) for name in names]
    feeder = Feeder(plan.window_seconds)
    spool = str(Path(plan.requests_file).parent / "spool")
    return [OurNode(plan, name, feeder, spool) for name in names]


def start(nodes: Sequence[Node], begin: float, spread_seconds: float) -> None:
    """Starts each at a random moment of the time that they have for it."""
    moments = sorted(random.uniform(0.0, spread_seconds) for _ in nodes)
    for node, moment in zip(nodes, moments, strict=True):
        time.sleep(max(0.0, begin + moment - time.monotonic()))
        node.start()


def cpu(plan: Plan) -> dict[str, float]:
    """CPU seconds so far of the servers and of this process."""
    figures = {f"{name}_cpu": process_tree.cpu_seconds(pid) for name, pid in plan.programs.items()}
    return {**figures, "client_cpu": time.process_time()}


def lateness(asked: Sequence[Asked], end: float) -> tuple[list[float], dict[str, float]]:
    """Of each window how long after its end the server had it; of each node its newest window."""
    seconds: list[float] = []
    newest: dict[str, float] = {}
    for one in asked:
        if one.status == 200 and one.ended <= end:
            for node, timestamp_ms in one.windows:
                seconds.append(one.ended - timestamp_ms / 1e3)
                newest[node] = max(newest.get(node, 0.0), timestamp_ms / 1e3)
    return seconds, newest


def windows(plan: Plan, asked: Sequence[Asked], begin: float, end: float) -> dict[str, float]:
    """What became of the windows: how many there should be, how many came, how late they were."""
    late, _ = lateness([one for one in asked if one.ended >= begin], end)
    _, newest = lateness(asked, end)
    # What the server lacks in the end: windows since a node's newest one that it has.
    lacking = [end - newest.get(node, begin) - plan.window_seconds for node in newest]
    return {
        "windows": len(late),
        "windows_due": plan.nodes * plan.seconds / plan.window_seconds,
        "windows_late": sum(seconds > plan.longest_late_seconds for seconds in late),
        "latest_seconds": max([*late, *lacking], default=0.0),
        "silent_nodes": plan.nodes - len(newest),
    }


def requests_of(asked: Sequence[Asked]) -> dict[str, float]:
    """How many requests, and how long the slowest took."""
    times = [one.ended - one.began for one in asked]
    return {
        "requests": len(asked),
        "requests_failed": sum(one.status != 200 for one in asked),
        "log_requests": sum(one.path.endswith("/log-batch") for one in asked),
        "get_requests": sum("/runs/get?" in one.path for one in asked),
        "slowest_answer_seconds": max(times, default=0.0),
    }


def write_requests(plan: Plan, asked: Sequence[Asked], begin: float) -> None:
    """When each began, in seconds since `begin`, and how long it took."""
    rows = [(round(one.began - begin, 3), round(one.ended - one.began, 3)) for one in asked]
    Path(plan.requests_file).write_text(json.dumps(rows), encoding="utf-8")


def main(plan: Plan) -> None:
    """Simulates, measures, prints."""
    seen = Requests()
    seen.watch()
    threading.stack_size(STACK_BYTES)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    nodes = make_nodes(plan)
    first = time.monotonic() + PREPARATION_SECONDS
    threading.Thread(target=start, args=(nodes, first, plan.spread_seconds), daemon=True).start()
    time.sleep(first + plan.warm_up_seconds - time.monotonic())
    before, begin = cpu(plan), time.time()
    time.sleep(plan.seconds)
    after, end = cpu(plan), time.time()
    asked = list(seen.all)
    during = [one for one in asked if one.began >= begin]
    write_requests(plan, during, begin)
    figures = {name: after[name] - before[name] for name in before}
    figures.update({"nodes": plan.nodes, "seconds": end - begin})
    figures.update(windows(plan, asked, begin, end))
    figures.update(requests_of(during))
    print(json.dumps(figures), flush=True)
    os._exit(0)  # thousands of threads would finish first


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
