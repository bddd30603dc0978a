"""A real Slurm cluster on this machine: `slurmctld`, and a `slurmd` for each of its nodes."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
from pathlib import Path

from tests.mlflow.launched import clean_environment, find
from tests.support import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "scontrol", "squeue")
PACKAGES = "munge slurmctld slurmd slurm-client"
NAMESPACES = ("--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""What makes a node of a process: a name, a table of hosts, and what ends with it."""

HOST = "127.0.0.1"
CPUS = 4
"""Of each node, however many there are."""

CONFIGURATION = """
ClusterName=test
SlurmctldHost={controller}({host})
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=bf_interval=1
SlurmdParameters=config_overrides
MailProg=/bin/true
"""
"""`cred_expire` says how long a job that is requeued has to wait, too: by default 120 s. At
intervals of `bf_interval`, by default 30 s, heterogeneous jobs begin and their nodes are freed."""

NODE = """
hostname "$1"
mount --bind "$2" /etc/hosts
"$3" -D -N "$1" &
wait
"""


class SlurmCluster:
    """Nodes with names `node0`, `node1`, … which see the same files, and end with `close()`.

    Args:
        folder: a new one with a short path, which everybody may enter.
        nodes: how many.
    """

    def __init__(self, folder: Path, nodes: int) -> None:
        self.nodes = [f"node{number}" for number in range(nodes)]
        self._folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._environment = {**clean_environment(), "SLURM_CONF": str(folder / "slurm.conf")}
        try:
            self._configure()
            self._start()
        except BaseException:
            self.close()
            raise

    # ---- its daemons ----------------------------------------------------------------------------

    def _configure(self) -> None:
        ports = _free_ports(1 + len(self.nodes))
        lines = CONFIGURATION.format(
            controller=socket.gethostname(),
            host=HOST,
            port=ports[0],
            user=os.environ.get("USER", "root"),
            folder=self._folder,
        ).splitlines()
        for node, port in zip(self.nodes, ports[1:], strict=True):
            (self._folder / node).mkdir()
            lines.append(
                f"NodeName={node} NodeHostname={node} NodeAddr={HOST} Port={port} CPUs={CPUS}"
            )
        lines.append("PartitionName=test Nodes=ALL Default=YES MaxTime=10 State=UP")
        (self._folder / "state").mkdir()
        (self._folder / "slurm.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        known = Path("/etc/hosts").read_text(encoding="utf-8")
        hosts = f"{known}\n{HOST} {' '.join(self.nodes)}\n"
        (self._folder / "hosts").write_text(hosts, encoding="utf-8")
        key = self._folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))

    def _start(self) -> None:
        folder = self._folder
        self._run_daemon(
            *("munged", "--foreground", f"--key-file={folder}/munge.key"),
            *(f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid"),
            *(f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munge.log"),
        )
        wait_until((folder / "munge.socket").exists, "munged")
        self._run_daemon("slurmctld", "-D", "-i")
        for node in self.nodes:
            self._run_daemon(
                *("unshare", *NAMESPACES, "sh", "-c", NODE, "sh"),
                *(node, str(folder / "hosts"), str(find("slurmd"))),
            )
        wait_until(self._is_idle, f"the nodes of Slurm; see {folder}")

    def _run_daemon(self, program: str, *arguments: str) -> None:
        with (self._folder / "log").open("ab") as log:
            daemon = subprocess.Popen(
                [str(find(program)), *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._daemons.append(daemon)

    def _is_idle(self) -> bool:
        for daemon in self._daemons:
            assert daemon.poll() is None, self.log
        asked = self._ask("sinfo", "--noheader", "--format=%D %t")
        return asked.stdout.split() == [str(len(self.nodes)), "idle"]

    @property
    def log(self) -> str:
        """What the daemons have said."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """End it and all of its jobs: each node is a namespace, which ends as a whole."""
        for daemon in reversed(self._daemons):
            daemon.kill()  # what it has written down goes with the folder
            daemon.wait()

    # ---- its users ------------------------------------------------------------------------------

    @property
    def variables(self) -> dict[str, str]:
        """What commands need to find it."""
        return {"SLURM_CONF": self._environment["SLURM_CONF"]}

    def run(self, *command: str) -> str:
        """What a command prints, without the line's end."""
        asked = self._ask(*command)
        assert asked.returncode == 0, asked.stderr + self.log
        return asked.stdout.strip()

    def _ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def cancel_all(self) -> None:
        """End all jobs, and wait until their nodes are free."""
        jobs = self.run("squeue", "--noheader", "--format=%A").split()
        if jobs:
            self.run("scancel", *jobs)
        wait_until(self._is_idle, "the end of all jobs")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
