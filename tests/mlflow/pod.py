"""A pod on this machine, of a manifest's own text: what a kubelet makes of it, as far as we see it.

A container is a process in namespaces: its root is made of this machine's folders, read-only where
the manifest says so; its user, its environment and its volumes are those of the manifest. The pod
has one namespace of processes where it says so, one ``/dev/shm`` in any case, and each container a
control group of its own.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import manifests
from tests.manifests import Manifest
from tests.support import wait_until

PATIENCE_SECONDS = 60.0

_OF_THE_IMAGE = ("bin", "etc", "lib", "lib32", "lib64", "opt", "sbin", "usr")
_DEVICES = ("null", "random", "urandom", "zero")


def skip_unless_possible() -> None:
    """Skip the test where such containers cannot be made."""
    if not sys.platform.startswith("linux") or os.getuid() != 0:
        pytest.skip("only Linux's root may make containers")
    for tool in ("chroot", "nsenter", "setpriv", "unshare"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    attempt = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount", "--cgroup", "mount", "-t", "proc", "p", "/proc"],
        capture_output=True,
        text=True,
        check=False,
    )
    if attempt.returncode != 0:
        pytest.skip(f"no container can be made here: {attempt.stderr.strip()}")


class Container:
    """One that has been started."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._output = folder / "output"
        self._errors = folder / "errors"
        with self._output.open("ab") as output, self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        self.pid = wait_until(lambda: _child_of(self._process.pid), "the container's process")

    @property
    def text(self) -> str:
        """What it has written so far, to both outputs."""
        return self._output.read_text(encoding="utf-8") + self._errors.read_text(encoding="utf-8")

    def wait_for(self, text: str) -> None:
        """Wait until it has written the text."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.text:
            assert self._process.poll() is None, self.text
            assert time.monotonic() < deadline, f"no {text!r} in {self.text!r}"
            time.sleep(0.05)

    def send(self, number: signal.Signals) -> None:
        """Send its first process a signal, as the kubelet does."""
        os.kill(self.pid, number)

    def status(self) -> int:
        """Wait for its end; how it ended."""
        return self._process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class RunningPod:
    """A pod of a manifest, whose containers the test starts and ends.

    Args:
        folder: of this pod alone.
        pod: of the manifest.
        name: of the pod.
        config: what its configuration maps hold.
        program: the image's ``train.py``.
    """

    def __init__(
        self, folder: Path, pod: manifests.Pod, name: str, config: dict[str, str], program: str
    ) -> None:
        self._folder = folder
        self._pod = pod
        self._name = name
        self._config = config
        self._containers: list[Container] = []
        (folder / "app").mkdir(parents=True)
        (folder / "app" / "train.py").write_text(program, encoding="utf-8")
        for volume in ("shm", *(one["name"] for one in pod.spec["volumes"])):
            (folder / volume).mkdir(exist_ok=True)
            (folder / volume).chmod(0o777)
        self._pause = Container(
            ["unshare", "--pid", "--fork", "--kill-child", "sleep", "600"], folder
        )

    def volume(self, name: str) -> Path:
        """What this machine has of a volume."""
        return self._folder / name

    def container(self, name: str) -> Manifest:
        """What its manifest says of a container."""
        return self._pod.container(name)

    def start(self, name: str, group: Path | None = None) -> Container:
        """Start a container.

        Args:
            name: of the manifest.
            group: the control group that it has of its memory; else it has none of its own.
        """
        container = self._pod.container(name)
        folder = self._folder / f"container-{len(self._containers)}"
        (folder / "root").mkdir(parents=True)
        script = folder / "start.sh"
        script.write_text("\n".join(self._mounts(container, folder / "root")), encoding="utf-8")
        join = "" if group is None else f"echo 0 >{group}/cgroup.procs; "
        enter = ["unshare", "--pid", "--fork", "--kill-child"]
        if self._pod.spec.get("shareProcessNamespace"):
            enter = ["nsenter", f"--pid=/proc/{self._pause.pid}/ns/pid"]
        inner = f"{join}exec unshare --mount --cgroup sh -e {script}"
        started = Container([*enter, "sh", "-c", inner], folder)
        self._containers.append(started)
        return started

    def _mounts(self, container: Manifest, root: Path) -> list[str]:
        """The lines of a script that makes the container's root, and becomes its process."""
        lines = [f"mount -t tmpfs -o mode=755 none {root}", f"cd {root}"]
        lines.append("mkdir app dev proc sys tmp dev/shm")
        for name in _OF_THE_IMAGE:
            path = Path("/", name)
            if path.is_symlink():
                lines.append(f"ln -s {path.readlink()} {name}")
            elif path.exists():
                lines.append(f"mkdir {name} && mount --bind {path} {name}")
        lines += [f"touch dev/{name} && mount --bind /dev/{name} dev/{name}" for name in _DEVICES]
        lines += [
            "mount -t proc proc proc",
            "mount -t sysfs sysfs sys",
            "if [ -e /sys/fs/cgroup/cgroup.controllers ]; then",
            "  mount -t cgroup2 cgroup sys/fs/cgroup",
            "else",
            "  mount -t tmpfs none sys/fs/cgroup && mkdir sys/fs/cgroup/memory",
            "  mount -t cgroup -o memory cgroup sys/fs/cgroup/memory",
            "fi",
            f"mount --bind {self._folder}/app app",
            f"mount --bind {self._folder}/shm dev/shm",
        ]
        volumes = {one["name"]: one for one in self._pod.spec["volumes"]}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            source = volume.get("hostPath", {}).get("path", self._folder / mount["name"])
            path = mount["mountPath"].lstrip("/")
            lines.append(f"mkdir -p {path} && mount --rbind {source} {path}")
        for prefix in {sys.prefix, sys.base_prefix} - {"/usr"}:  # of Python and this package
            lines.append(f"mkdir -p .{prefix} && mount --bind {prefix} .{prefix}")
        if container["securityContext"]["readOnlyRootFilesystem"]:
            lines.append(f"mount -o remount,ro {root}")
        lines.append("exec " + shlex.join(self._command(container, root)))
        return lines

    def _command(self, container: Manifest, root: Path) -> list[str]:
        user = {**self._pod.spec["securityContext"], **container["securityContext"]}
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        given = {
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/",
            "HOSTNAME": self._name,
            "KUBERNETES_SERVICE_HOST": "10.96.0.1",
            "JOB_COMPLETION_INDEX": "0",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_PYTHON_REFRESH": "quiet",
            **(self._config if "envFrom" in container else {}),
            **manifests.variables(container, self._name),
        }
        return [
            *("chroot", str(root), "setpriv", f"--reuid={user['runAsUser']}"),
            *(f"--regid={user['runAsGroup']}", "--clear-groups", "--inh-caps=-all"),
            *("--bounding-set=-all", "--no-new-privs", "env", "-i", "-C", "/app"),
            *(f"{name}={value}" for name, value in given.items()),
            *container["command"],
            *container.get("args", ()),
        ]

    def kill(self) -> None:
        """End all of it: without its first process nothing is left in a namespace."""
        for container in (*self._containers, self._pause):
            with contextlib.suppress(ProcessLookupError):
                os.kill(container.pid, signal.SIGKILL)
            container.kill()


def _child_of(pid: int) -> int:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return 0
    return int(children[0]) if children else 0
