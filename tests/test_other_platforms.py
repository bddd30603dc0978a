"""The fallback where there is neither a C core nor POSIX, as on Windows, and on macOS.

Neither system is here. So a fresh interpreter takes away what they lack: first it imports what a
session needs of the standard library and of psutil, whose Linux parts may use what they like; then
POSIX's modules and functions go, and only then our package is imported and used.
"""

from __future__ import annotations

import json
import textwrap

import pytest

from tests.support import run_python

# What the standard library's documentation says is for Unix alone.
POSIX_MODULES = [
    *("crypt", "curses", "fcntl", "grp", "nis", "ossaudiodev", "posix", "pty", "pwd", "readline"),
    *("resource", "spwd", "syslog", "termios", "tty", "_posixshmem", "_posixsubprocess"),
]

POSIX_FUNCTIONS = {
    "os": [
        *("WEXITSTATUS", "WIFEXITED", "WIFSIGNALED", "WNOHANG", "WTERMSIG", "chown", "chroot"),
        *("confstr", "ctermid", "eventfd", "fchdir", "fchmod", "fchown", "fdatasync", "fork"),
        *("forkpty", "fpathconf", "fstatvfs", "getegid", "geteuid", "getgid", "getgroups"),
        *("getloadavg", "getpgid", "getpgrp", "getpriority", "getresuid", "getsid", "getuid"),
        *("initgroups", "killpg", "lchown", "lockf", "major", "makedev", "memfd_create"),
        *("minor", "mkfifo", "mknod", "nice", "openpty", "pathconf", "pidfd_open", "pipe2"),
        *("posix_fadvise", "posix_fallocate", "posix_spawn", "posix_spawnp", "pread", "preadv"),
        *("pwrite", "pwritev", "register_at_fork", "sched_getaffinity", "sched_getparam"),
        *("sched_setaffinity", "sched_yield", "sendfile", "setegid", "seteuid", "setgid"),
        *("setgroups", "setns", "setpgid", "setpriority", "setsid", "setuid", "splice"),
        *("statvfs", "sync", "sysconf", "tcgetpgrp", "tcsetpgrp", "ttyname", "uname"),
        *("unshare", "wait", "wait3", "wait4", "waitid", "O_CLOEXEC", "O_NONBLOCK"),
    ],
    "signal": [
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP"),
        *("SIGUSR1", "SIGUSR2", "SIG_BLOCK", "SIG_SETMASK", "alarm", "getitimer", "pause"),
        *("pthread_kill", "pthread_sigmask", "setitimer", "siginterrupt", "sigpending"),
        *("sigtimedwait", "sigwait", "sigwaitinfo"),
    ],
    "time": [
        *("CLOCK_MONOTONIC", "CLOCK_MONOTONIC_RAW", "CLOCK_PROCESS_CPUTIME_ID"),
        *("CLOCK_REALTIME", "clock_getres", "clock_gettime", "clock_gettime_ns"),
        *("clock_settime", "pthread_getcpuclockid", "tzset"),
    ],
    "socket": ["AF_UNIX", "SCM_RIGHTS", "sethostname", "socketpair"],
    "select": ["epoll", "poll"],
}

# What is loaded by a session with the fallback, so that it can be imported in time.
LOADED = """
    import json, sys
    import logging, pkgutil, atexit, tempfile
    import click, numpy, rich.console, rich.progress, rich.table, tenacity  # of the command line
    sys.modules["sysmetrics_native._native"] = None
    from sysmetrics_native import Sampler
    import sysmetrics_native
    with tempfile.TemporaryDirectory() as folder, Sampler(0.01, recorder=folder) as sampler:
        sampler.next_window(timeout=30)
        from sysmetrics_native.recording import Recording
        Recording(sampler.recording_path).close()
    print(json.dumps([name for name in sys.modules if not name.startswith("sysmetrics_native")]))
"""

BLOCKER = """
    import importlib, json, os, sys, types
    platform, loaded, modules, functions = json.loads(sys.argv[1])
    for name in loaded:
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    import psutil

    # psutil's Linux code keeps an `os` of its own, whole.
    whole = types.ModuleType("os")
    whole.__dict__.update(os.__dict__)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "psutil" and getattr(module, "os", None) is os:
            module.os = whole
    for name in modules:
        sys.modules[name] = None
    for module, names in functions.items():
        for name in names:
            sys.modules[module].__dict__.pop(name, None)
    sys.modules["sysmetrics_native._native"] = None
    sys.platform = platform
"""

SESSION = """
    import math, tempfile
    import sysmetrics_native
    from sysmetrics_native import Sampler, configure, set_system_metrics_sampling_interval
    from sysmetrics_native.catalog import metrics_of

    # Every module of ours can be imported, but for those that need the C core or a framework.
    import pkgutil
    names = [module.name for module in pkgutil.walk_packages(
        sysmetrics_native.__path__, "sysmetrics_native.")]
    for name in names:
        if not name.startswith(tuple("sysmetrics_native." + other for other in (
                "backends.native", "_native", "lightning", "ray", "transformers"))):
            importlib.import_module(name)

    try:
        Sampler(backend="native")
    except ValueError as error:
        print(error)
    set_system_metrics_sampling_interval(0.5)
    configure(statistics="mean,p99", disk_paths="/")
    windows = []
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "a.smnrec")
    sampler = Sampler(interval=0.02, samples_per_window=10, recorder=path)
    sampler.start()
    for window in sampler.windows(timeout=30):
        windows.append(window)
        if len(windows) == 3:
            break
    assert sampler.stop() is True
    windows += sampler.windows()
    for window in windows:
        metrics = dict(metrics_of(window, sampler.schema, ["mean", "max", "p99"]))
        assert metrics and all(math.isfinite(value) for value in metrics.values())
    stats = sampler.stats()
    assert all(source["errors"] == 0 for source in stats["sources"].values()), stats
    assert stats["ticks"] == sum(window.samples for window in windows)
    from sysmetrics_native.recording import Recording
    with Recording(path) as recording:
        assert recording.state == "ended" and not recording.is_being_written()
        replayed = list(recording.windows())
        recording.mark_delivered()
    assert [dict(window) for window in replayed] == [dict(window) for window in windows]
    os.unlink(path)
    os.rmdir(folder)
    print(sorted(key for key, series in windows[0].items() if series.mean is not None))
    print(type(sampler._backend).__name__)
"""

# psutil's answers have other fields there.
SHAPES = {
    "win32": """
        from collections import namedtuple
        real_times, real_memory = psutil.cpu_times, psutil.virtual_memory
        scputimes = namedtuple("scputimes", "user system idle interrupt dpc")
        svmem = namedtuple("svmem", "total available percent used free")

        def cpu_times():
            times = real_times()
            return scputimes(times.user, times.system, times.idle, times.irq, times.softirq)

        def virtual_memory():
            memory = real_memory()
            used = memory.total - memory.available
            return svmem(memory.total, memory.available, memory.percent, used, memory.available)

        psutil.cpu_times, psutil.virtual_memory = cpu_times, virtual_memory
    """,
    "darwin": """
        from collections import namedtuple
        real_times, real_memory = psutil.cpu_times, psutil.virtual_memory
        scputimes = namedtuple("scputimes", "user nice system idle")
        svmem = namedtuple("svmem", "total available percent used free active inactive wired")

        def cpu_times():
            times = real_times()
            return scputimes(times.user, times.nice, times.system, times.idle)

        def virtual_memory():
            memory = real_memory()
            return svmem(memory.total, memory.available, memory.percent, memory.used, memory.free,
                         0, 0, 0)

        psutil.cpu_times, psutil.virtual_memory = cpu_times, virtual_memory
    """,
}

KEYS = [
    "cpu_utilization_percentage",
    "disk_available_megabytes",
    "disk_usage_megabytes",
    "disk_usage_percentage",
    "network_receive_megabytes",
    "network_transmit_megabytes",
    "system_memory_usage_megabytes",
    "system_memory_usage_percentage",
]


@pytest.fixture(scope="module")
def loaded() -> list[str]:
    result = run_python(LOADED)
    assert result.stderr == ""
    names = json.loads(result.stdout)
    assert "psutil" in names
    assert "threading" in names
    return [str(name) for name in names if name not in ("__main__", "__mp_main__")]


def run_elsewhere(
    platform: str, loaded: list[str], *programs: str, arguments: tuple[str, ...] = ()
) -> tuple[str, str, int]:
    settings = json.dumps([platform, loaded, POSIX_MODULES, POSIX_FUNCTIONS])
    whole = "\n".join(textwrap.dedent(program) for program in (BLOCKER, *programs))
    result = run_python(whole, settings, *arguments)
    return result.stdout, result.stderr, result.returncode


@pytest.mark.parametrize("platform", SHAPES)
def test_the_fallback_needs_nothing_that_only_posix_has(platform, loaded):
    out, err, code = run_elsewhere(platform, loaded, SHAPES[platform], SESSION)
    assert (err, code) == ("", 0)
    refusal, *rest = out.splitlines()
    assert refusal == (
        "backend must be psutil or auto here, got 'native': this installation has no C extension "
        f"for {platform}"
    )
    assert rest == [str(KEYS), "PsutilBackend"]


# ---- the blocker itself: were it to let something through, this would fail ----------------------

INTRUDERS = {
    **{f"import {module}": "ModuleNotFoundError" for module in POSIX_MODULES},
    "from fcntl import flock": "ModuleNotFoundError",
    "import importlib; importlib.import_module('fcntl')": "ModuleNotFoundError",
    "import sysmetrics_native._native": "ModuleNotFoundError",
    "import sysmetrics_native.backends.native": "ModuleNotFoundError",
    **{
        f"import {module}; {module}.{name}": "AttributeError"
        for module, names in POSIX_FUNCTIONS.items()
        for name in names
    },
}

INTRUSION = """
    import sysmetrics_native

    sysmetrics_native.__path__.append(sys.argv[2])
    for number in range(int(sys.argv[3])):
        try:
            importlib.import_module(f"sysmetrics_native.intruder{number}")
        except Exception as error:
            print(type(error).__name__)
        else:
            print("nothing")
"""


def test_a_module_of_ours_that_needs_posix_would_be_seen(loaded, tmp_path):
    """Modules are put into our package that do what it must not do: every one of them fails."""
    for number, source in enumerate(INTRUDERS):
        (tmp_path / f"intruder{number}.py").write_text(source, encoding="utf-8")
    arguments = (str(tmp_path), str(len(INTRUDERS)))
    out, err, code = run_elsewhere("win32", loaded, INTRUSION, arguments=arguments)
    assert (err, code) == ("", 0)
    assert dict(zip(INTRUDERS, out.splitlines(), strict=True)) == INTRUDERS


def test_without_the_blocker_nothing_is_missing(tmp_path):
    """What is blocked is there: the test above does not pass for another reason."""
    there = [
        *(f"import {name}" for name in ("fcntl", "resource", "pwd", "grp", "termios", "posix")),
        "import os; os.fork; os.register_at_fork; os.getuid; os.uname; os.statvfs; os.sysconf",
        "import signal; signal.SIGKILL; signal.pthread_sigmask; signal.setitimer",
        "import time; time.clock_gettime; time.CLOCK_MONOTONIC",
    ]
    for number, source in enumerate(there):
        (tmp_path / f"intruder{number}.py").write_text(source, encoding="utf-8")
    program = "import importlib, sys" + textwrap.dedent(INTRUSION)
    result = run_python(program, "", str(tmp_path), str(len(there)))
    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout.splitlines() == ["nothing"] * len(there)
