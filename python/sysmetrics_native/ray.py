"""One sampler on each node of a Ray cluster, for one run, nodes that join later included.

```python
import ray, mlflow
from sysmetrics_native.ray import monitor_cluster

ray.init(address="auto")
with mlflow.start_run() as run, monitor_cluster(run.info.run_id):
    trainer.fit()
```

Two kinds of actors do it, neither of which takes a resource of the job:

- one `SystemMetricsWatch`, on the node of the process that called. It looks who is in the cluster,
  puts a sampler on each node, and another one where a sampler has died;
- one `SystemMetricsSampler` on each node, tied to it. It does what `monitor_run` does.

The watch is an actor and no thread of the calling process, because there nothing of ours may call
Ray beside the program: a call that meets `ray.shutdown()` would connect anew, or crash. None of
the actors is detached. Ray ends the watch with the process that called, and the samplers with the
watch, however that came to its end; so nothing stays behind. Should the watch itself die, Ray
starts it anew and it puts new samplers in place. While Ray's head does not answer nobody is put
anywhere, and nobody is taken away.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, final

from sysmetrics_native import catalog, nodes, settings
from sysmetrics_native.threads import Thread

try:
    import ray
except ModuleNotFoundError as error:
    if error.name != "ray":
        raise
    raise ModuleNotFoundError(
        "monitoring a Ray cluster needs Ray, which is not installed: pip install 'ray>=2.9'",
        name="ray",
    ) from None

_logger = logging.getLogger("sysmetrics_native")

LOOK_SECONDS = 5.0
"""How often the watch asks who is in the cluster. That a sampler has died it is told at once."""
LONGEST_PAUSE_SECONDS = 300.0
"""Before a node on which samplers die again and again gets the next one."""
RAYLET_CHECK_SECONDS = 1.0
"""How often a sampler looks whether its parent, the Ray of its node, is still there."""
GRACE_SECONDS = 1.0
"""What an actor may take to answer beyond the time that its own work is given."""

_OUR_VARIABLES = ("MLFLOW_", "SYSMETRICS_NATIVE_", "DATABRICKS_")
"""What begins like this goes to the samplers: options, the tracking server, credentials."""
_NODE_VARIABLES = (settings.MLFLOW_NODE_ID, f"{settings.ENVIRONMENT_PREFIX}NODE_ID")
"""Of one node; the whole cluster would have it."""
_PLAIN = ""
"""The name of a node whose keys have no node part."""
_MAX_NAME_LENGTH = 100
_DIGITS_OF_NODE = 8


class Job(NamedTuple):
    """What the actors are told."""

    run_id: str
    tracking_uri: str
    sampling_interval: float
    samples_before_logging: int
    environment: Mapping[str, str]
    """Variables of the calling process, which beat those of a node."""
    options: Mapping[str, Any]
    """What it was told by `configure`."""
    names: Mapping[str, str]
    """Of the nodes that were there at the call, by Ray's node ids; see `name_nodes`."""


# ---- names --------------------------------------------------------------------------------------


def name_nodes(alive: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, str]:
    """What each node is called in keys: ``system/<name>/…``.

    That is the name that ``ray start --node-name`` gave it, else its host's, which stays when Ray
    on that machine is started anew. Where several have the same, those that have no name yet get
    the first digits of Ray's node id behind it.

    Args:
        alive: entries of `ray.nodes()`.
        names: those given before, which nodes keep for as long as they are there.

    Returns:
        The names of these nodes, by Ray's node ids.
    """
    bases = {str(node["NodeID"]): _base_name(node) for node in alive}
    known = {node_id: names[node_id] for node_id in bases if node_id in names}
    claims = Counter(bases[node_id] for node_id in bases if node_id not in known)
    claims.update(known.values())
    return {
        node_id: known.get(
            node_id, base if claims[base] == 1 else f"{base}-{node_id[:_DIGITS_OF_NODE]}"
        )
        for node_id, base in bases.items()
    }


def _base_name(node: Mapping[str, Any]) -> str:
    name = str(node.get("NodeName") or "")
    address = str(node.get("NodeManagerAddress") or "")
    if name in ("", address):  # Ray's own, where it was given none
        name = str(node.get("NodeManagerHostname") or "")
    return (
        catalog.clean_node_id(name)[:_MAX_NAME_LENGTH] or catalog.clean_node_id(address) or "node"
    )


def _nodes_alive() -> list[Mapping[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _on_node(node_id: str) -> Any:
    """What ties an actor to a node: it is there, or nowhere."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)


# ---- the actor on each node ---------------------------------------------------------------------


class SystemMetricsSampler:
    """Monitors the run on its node; an actor, whose methods may run at the same time.

    Args:
        job: what to do.
        name: of the node, in keys.
    """

    def __init__(self, job: Job, name: str) -> None:
        # Not as Ray's `runtime_env`: that is shown to everybody who sees the cluster's dashboard,
        # and these may be credentials.
        os.environ.update(job.environment)
        for variable in (*_NODE_VARIABLES, *nodes.VARIABLES):  # which node this is we have said
            os.environ.pop(variable, None)
        self._job = job
        self._name = name
        self._raylet = os.getppid()
        self._lock = threading.Lock()  # guards what follows
        self._monitor: Any = None
        self._is_closing = False

    def is_there(self) -> bool:
        """True: the actor has started."""
        return True

    def run(self) -> bool:
        """Monitor until the run ends, or until `close`; true if the run has ended.

        Raises:
            ValueError: an option is not allowed on this node.
            ModuleNotFoundError: something is not installed on this node.
        """
        from sysmetrics_native.monitor import SystemMetricsMonitor

        job = self._job
        settings.configure(**job.options)
        # That would be this actor, about which nobody wants to know.
        settings.configure(sources=(*settings.option("sources"), "-process"))
        monitor = SystemMetricsMonitor(
            job.run_id,
            job.sampling_interval,
            job.samples_before_logging,
            resume_logging=True,
            node_id=self._name or None,
            tracking_uri=job.tracking_uri,
        )
        with self._lock:
            if self._is_closing:
                return False
            monitor.start()
            self._monitor = monitor
        self._wait(monitor)
        monitor.finish()
        return not self._is_closing and self._is_run_over()

    def _wait(self, monitor: Any) -> None:
        """Wait for the end of monitoring, or that of this node's Ray.

        Ray lets an actor end only when its methods have, so this one would outlive its node.
        """
        while not monitor.wait(RAYLET_CHECK_SECONDS) and os.getppid() == self._raylet:
            pass

    def close(self) -> None:
        """Log what is left, the open window included, within the option ``shutdown_timeout``."""
        with self._lock:
            self._is_closing = True
        if self._monitor is not None:
            self._monitor.finish()

    def _is_run_over(self) -> bool:
        """Why monitoring has ended: false where only this node has a reason."""
        from sysmetrics_native import tracking

        try:
            state = tracking.connect(self._job.tracking_uri).run(self._job.run_id)
        except Exception as failure:  # noqa: BLE001  # whatever it is, we do not know
            return tracking.error_code(failure) == tracking.NO_SUCH_RUN
        return state.is_deleted or state.status != "RUNNING"


# ---- the actor that watches the cluster ---------------------------------------------------------


class _Placed(NamedTuple):
    """A sampler on a node."""

    actor: Any
    is_there: Any
    """Comes when the actor has started."""
    end: Any
    """Comes when it has ended."""
    since: float


class _Failures(NamedTuple):
    """Of samplers on one node, one after the other."""

    times: int
    retry_at: float


class SystemMetricsWatch:
    """Keeps a sampler on each node of the cluster until the run ends; an actor.

    Args:
        job: what to do.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._myself = ray.get_runtime_context().current_actor
        self._names: Mapping[str, str] = job.names
        self._failures: dict[str, _Failures] = {}
        self._finished: set[str] = set()
        """Nodes that need no sampler any more: they are monitored in another way, or not at all."""
        self._is_run_over = False
        self._lock = threading.Lock()  # guards what follows
        self._placed: dict[str, _Placed] = {}
        self._is_closing = False
        Thread("SystemMetricsWatch", self._watch).start()

    def close(self, seconds: float) -> list[str]:
        """Let all samplers log what is left and end.

        Args:
            seconds: the most that it takes.

        Returns:
            The names of nodes that have not said in time that they have.
        """
        with self._lock:
            self._is_closing = True
            placed = dict(self._placed)
        there, _ = _ready([one.is_there for one in placed.values()], 0.0)
        closing = {
            one.actor.close.remote(): node_id
            for node_id, one in placed.items()
            if one.is_there in there  # the others have nothing to log
        }
        _, late = _ready(list(closing), seconds)
        return sorted(self._names.get(closing[ref]) or "this" for ref in late)

    # ---- its thread -----------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._is_closing:
            try:
                self._look()
            except Exception as error:  # noqa: BLE001  # the cluster's head may come back
                _logger.info("Cannot see the nodes of the Ray cluster now: %s", error)
            if self._is_run_over and not self._placed:
                _logger.info("Run %s is over, its Ray cluster is left.", self._job.run_id)
                ray.kill(self._myself, no_restart=True)
            self._wait()

    def _look(self) -> None:
        """Put samplers where none are, and forget nodes that are gone."""
        alive = _nodes_alive()
        self._names = name_nodes(alive, self._names)
        with self._lock:
            if self._is_closing:
                return
            for node_id in [node_id for node_id in self._placed if node_id not in self._names]:
                del self._placed[node_id]
            for node_id, name in self._names.items():
                if self._needs_sampler(node_id):
                    self._placed[node_id] = self._place(node_id, name)

    def _needs_sampler(self, node_id: str) -> bool:
        if self._is_run_over or node_id in self._placed or node_id in self._finished:
            return False
        failures = self._failures.get(node_id)
        return failures is None or time.monotonic() >= failures.retry_at

    def _place(self, node_id: str, name: str) -> _Placed:
        # Without resources, so it is no load for the scheduler. Ray would start it anew by itself,
        # but again and again, however fast it dies.
        remote = ray.remote(num_cpus=0, max_restarts=0, max_concurrency=4)(SystemMetricsSampler)
        actor = remote.options(scheduling_strategy=_on_node(node_id)).remote(self._job, name)
        return _Placed(actor, actor.is_there.remote(), actor.run.remote(), time.monotonic())

    def _wait(self) -> None:
        """Until it is time to look again: at the latest when a sampler has ended."""
        nodes_of = {one.end: node_id for node_id, one in dict(self._placed).items()}
        if not nodes_of:
            time.sleep(LOOK_SECONDS)
            return
        for end in _ready(list(nodes_of), LOOK_SECONDS, at_least=1)[0]:
            self._take_end(nodes_of[end], end)

    def _take_end(self, node_id: str, end: Any) -> None:
        with self._lock:
            placed = self._placed.pop(node_id, None)
        if placed is None or self._is_closing:
            return
        try:
            is_run_over = ray.get(end)
        except Exception as error:  # noqa: BLE001  # ours or Ray's: the sampler is no more
            self._note_failure(node_id, placed, error)
            return
        self._is_run_over = self._is_run_over or is_run_over
        self._finished.add(node_id)

    def _note_failure(self, node_id: str, placed: _Placed, error: Exception) -> None:
        now = time.monotonic()
        before = self._failures.get(node_id)
        has_lived = now - placed.since > LONGEST_PAUSE_SECONDS
        count = 1 if before is None or has_lived else before.times + 1
        # The first is replaced at once: whatever killed it may have been a whim.
        pause = 0.0 if count == 1 else min(LOOK_SECONDS * 2.0**count, LONGEST_PAUSE_SECONDS)
        self._failures[node_id] = _Failures(count, now + pause)
        if count == 2:  # noqa: PLR2004  # of one there may be a node that died, which is no news of ours
            _logger.warning(
                "System metrics of the Ray node %s cannot be logged now, will try again: %s",
                self._names.get(node_id) or node_id,
                _reason(error),
            )


def _ready(
    refs: list[Any], seconds: float, at_least: int | None = None
) -> tuple[list[Any], list[Any]]:
    """Wait for results, unless told otherwise for all: those that are there, and the others."""
    if not refs:
        return [], []
    ready, others = ray.wait(refs, num_returns=at_least or len(refs), timeout=seconds)
    return ready, others


def _reason(error: Exception) -> str:
    """The last line of what Ray says, which is what the actor said where it was the actor."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


# ---- for the program ----------------------------------------------------------------------------


class _Watched:
    """A run that this process has put under watch."""

    def __init__(self, watch: Any, session: tuple[str, str], seconds: float) -> None:
        self._watch = watch
        self.session = session
        self._pid = os.getpid()
        self._seconds = seconds
        self.users = 0
        self._has_ended = False
        atexit.register(self.end)  # which comes before Ray's own, as Ray was imported before

    def end(self) -> None:
        """Let everything be logged, and the actors go."""
        if self._has_ended or os.getpid() != self._pid:
            return
        self._has_ended = True
        atexit.unregister(self.end)
        try:
            # Ray would connect to a cluster, or start one, where a call finds it without.
            if not ray.is_initialized() or _session() != self.session:
                return
            self._end()
        except ray.exceptions.RayActorError:
            pass  # the run had ended before
        except Exception as error:  # noqa: BLE001  # first law: a run never fails for its monitor
            _logger.warning("Failed to stop monitoring the Ray cluster cleanly: %s", _reason(error))
        with suppress(Exception):
            ray.kill(self._watch, no_restart=True)

    def _end(self) -> None:
        seconds = self._seconds + GRACE_SECONDS
        late = ray.get(self._watch.close.remote(seconds), timeout=seconds + GRACE_SECONDS)
        if late:
            _logger.warning(
                "System metrics of these Ray nodes may lack their last windows, because that took "
                "longer than %g s: %s",
                self._seconds,
                ", ".join(late),
            )


_lock = threading.RLock()  # guards what follows
_watched: dict[tuple[str, str], _Watched] = {}  # by tracking server and run


def _forget_in_child() -> None:
    global _lock  # noqa: PLW0603  # whoever has it may not be in this process
    _lock = threading.RLock()
    _watched.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


@final
class ClusterMonitor:
    """What `monitor_cluster` returns: a context manager, whose end is that of monitoring."""

    def __init__(self) -> None:
        self._key: tuple[str, str] | None = None
        self._watch: _Watched | None = None

    def __enter__(self) -> ClusterMonitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Log what is left on all nodes, the open windows included, and take the actors away.

        Takes at most two seconds more than the option ``shutdown_timeout`` (10 s unless set),
        whatever nodes and servers do, and raises nothing. Harmless when called twice, after
        `ray.shutdown()`, or in a forked process. Where `monitor_cluster` was called several times
        for a run the last one that is closed does it.
        """
        with _lock:
            watch, self._watch = self._watch, None
            if watch is None:
                return
            watch.users -= 1
            if watch.users > 0:
                return
            if self._key is not None and _watched.get(self._key) is watch:
                del _watched[self._key]
        watch.end()

    def _begin(self, job: Job, session: tuple[str, str], seconds: float) -> None:
        key = job.tracking_uri, job.run_id
        with _lock:
            watch = _watched.get(key)
            if watch is None or watch.session != session:
                watch = _Watched(_start_watch(job, session), session, seconds)
                _watched[key] = watch
            watch.users += 1
            self._key, self._watch = key, watch


def monitor_cluster(
    run_id: str,
    sampling_interval: float = 10,
    samples_before_logging: int = 1,
    *,
    tracking_uri: str | None = None,
) -> ClusterMonitor:
    """Monitor a run on every node of the Ray cluster that this process is connected to.

    Call it once, in the driver, after `ray.init()`. It returns at once, and raises nothing: what
    is wrong is a warning, and the program goes on without system metrics. Monitoring ends when the
    result is closed, when the run has ended elsewhere, and with this process; at a regular exit
    what is left is logged as by `close`. Whoever calls `ray.shutdown()` while it goes on loses the
    windows that are open.

    The package must be installed on all nodes. Their samplers have this process's options
    (`configure` and ``SYSMETRICS_NATIVE_*``), and its variables ``MLFLOW_*`` and ``DATABRICKS_*``.

    Args:
        run_id: the run to log to.
        sampling_interval, samples_before_logging, tracking_uri: as of `SystemMetricsMonitor`.

    Returns:
        A context manager with a method `close`.
    """
    monitor = ClusterMonitor()
    try:
        if not ray.is_initialized():
            raise RuntimeError("Ray is not connected to a cluster: call ray.init() before")  # noqa: TRY301
        session = _session()
        job = _job(run_id, sampling_interval, samples_before_logging, tracking_uri, session)
        monitor._begin(job, session, settings.option("shutdown_timeout"))
    except Exception as error:  # noqa: BLE001  # first law again
        _logger.warning("Run %s goes on without system metrics: %s", run_id, error)
    return monitor


def _session() -> tuple[str, str]:
    """The job and the node of this process: no two connections to Ray have the same."""
    context = ray.get_runtime_context()
    return str(context.get_job_id()), str(context.get_node_id())


def _job(
    run_id: str,
    sampling_interval: float,
    samples_before_logging: int,
    tracking_uri: str | None,
    session: tuple[str, str],
) -> Job:
    from sysmetrics_native.delivery import resolve_uri
    from sysmetrics_native.tracking import absolute_uri

    interval = settings.mlflow_interval(sampling_interval)
    samples = settings.mlflow_samples(samples_before_logging)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_OUR_VARIABLES) and name not in _NODE_VARIABLES
    }
    # As of any setting of MLflow's the variable wins, and a node may have one of its own.
    environment[settings.MLFLOW_INTERVAL] = str(interval)
    environment[settings.MLFLOW_SAMPLES] = str(samples)
    options = {
        setting.name: setting.value
        for setting in settings.in_force()
        if setting.origin == "configure()" and setting.name != "node_id"
    }
    return Job(
        run_id,
        absolute_uri(resolve_uri(tracking_uri)),
        interval,
        samples,
        environment,
        options,
        _first_names(run_id, session[1]),
    )


def _first_names(run_id: str, this_node: str) -> dict[str, str]:
    """Of the nodes that are there now. A cluster of one node has plain keys, as any such job."""
    alive = _nodes_alive()
    in_use = _name_in_use(run_id)
    if in_use is None and len(alive) == 1:
        in_use = _PLAIN
    return name_nodes(alive, {} if in_use is None else {this_node: in_use})


def _name_in_use(run_id: str) -> str | None:
    """What keys of this node have if `mlflow.start_run` monitors it already; `None` if not."""
    from mlflow.tracking import fluent

    from sysmetrics_native.monitor import SystemMetricsMonitor

    monitor = getattr(fluent, "run_id_to_system_metrics_monitor", {}).get(run_id)
    if not isinstance(monitor, SystemMetricsMonitor):
        return None
    return monitor.node_id or _PLAIN


def _start_watch(job: Job, session: tuple[str, str]) -> Any:
    """The actor; it starts in the background."""
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_concurrency=2)(SystemMetricsWatch)
    return remote.options(scheduling_strategy=_on_node(session[1])).remote(job)
